import asyncio

from cacheproxy.tiers.lookups import KeyLookups


class Asked:
    """Takes calls, and answers them when told."""

    def __init__(self):
        self.calls = []
        self.open = asyncio.Event()

    async def __call__(self, keys, asked_at):
        self.calls.append(list(keys))
        await self.open.wait()
        return [b"record " + key for key in keys]


def lookups(asked, calls_at_once) -> KeyLookups:
    return KeyLookups(asked, calls_at_once=calls_at_once, most_keys=4)


async def begun(lookups, *lists):
    """Look the lists of keys up, one after the other; return the tasks."""
    tasks = []
    for keys in lists:
        tasks.append(asyncio.ensure_future(lookups.find(keys)))
        for _ in range(5):
            await asyncio.sleep(0)
    return tasks


async def test_lookups_of_the_same_moment_as_another_share_a_call():
    asked = Asked()
    ours = lookups(asked, 2)
    tasks = [asyncio.ensure_future(ours.find([key])) for key in (b"a", b"b", b"c")]
    await asyncio.sleep(0)  # lets all of them begin
    asked.open.set()

    assert await asyncio.gather(*tasks) == [[b"record a"], [b"record b"], [b"record c"]]
    assert asked.calls == [[b"a"], [b"b", b"c"]]


async def test_waiting_lookups_are_served_although_an_earlier_caller_left():
    asked = Asked()
    leaving, staying = await begun(lookups(asked, 1), [b"a"], [b"b"])
    leaving.cancel()
    asked.open.set()

    assert await staying == [b"record b"]
    assert leaving.cancelled()


async def test_as_many_calls_as_the_store_can_use_are_made_and_the_rest_share_the_next():
    asked = Asked()
    tasks = await begun(lookups(asked, 2), [b"a"], [b"b"], [b"c"], [b"d", b"e"], [b"f"])
    assert asked.calls == [[b"a"], [b"b"]]

    asked.open.set()
    found = await asyncio.gather(*tasks)

    assert asked.calls[2:] == [[b"c", b"d", b"e", b"f"]]
    assert found[3:] == [[b"record d", b"record e"], [b"record f"]]


async def test_no_call_has_more_keys_than_told():
    asked = Asked()
    tasks = await begun(lookups(asked, 1), [b"a"], [b"b", b"c", b"d"], [b"e", b"f"])
    asked.open.set()
    await asyncio.gather(*tasks)

    assert asked.calls == [[b"a"], [b"b", b"c", b"d"], [b"e", b"f"]]


async def test_a_long_lookup_holds_no_short_one_up():
    asked = Asked()
    long = [b"%d" % n for n in range(50)]
    tasks = await begun(lookups(asked, 1), long, long, [b"a"])
    assert asked.calls == [long, [b"a"]]

    asked.open.set()
    found = await asyncio.gather(*tasks)
    assert found[1] == [b"record " + key for key in long]


async def test_no_answer_is_no_answer_for_all_who_share_the_call():
    async def ask(keys, asked_at):
        await asyncio.sleep(0)

    tasks = await begun(lookups(ask, 1), [b"a"], [b"b"], [b"c"])
    assert await asyncio.gather(*tasks) == [None, None, None]


async def test_a_lookup_that_comes_as_the_last_call_ends_is_not_forgotten():
    asked = Asked()
    asked.open.set()
    ours = lookups(asked, 1)
    for n in range(20):
        assert await asyncio.wait_for(ours.find([b"%d" % n]), 10) == [b"record %d" % n]


async def test_where_lookups_come_together_those_of_one_turn_share_one_call():
    calls = []

    async def ask(keys, asked_at):
        calls.append(list(keys))
        await asyncio.sleep(0)
        return list(keys)

    ours = lookups(ask, 2)
    for _ in range(2):
        await asyncio.gather(*(ours.find([key]) for key in (b"a", b"b", b"c")))
    assert calls == [[b"a"], [b"b", b"c"], [b"a", b"b", b"c"]]
    for _ in range(2):
        await ours.find([b"a"])
    assert calls[3:] == [[b"a"], [b"a"]]
