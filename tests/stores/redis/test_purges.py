"""What is special to purges in Redis: announcements that get lost, and what is left behind."""

import asyncio
import time
from contextlib import asynccontextmanager

import pytest
from opened_stores import PARTITION, key, probes
from redis.exceptions import OutOfMemoryError

import cacheproxy.stores.redis.channel as redis_channel
from cacheproxy.keys import hex_id
from cacheproxy.stores.protocol import Entry
from cacheproxy.stores.purges import Scope
from cacheproxy.stores.redis.purging.floors import FLOORS, GENERATION, RUNNING
from cacheproxy.stores.redis.purging.notices import CHANNEL, scope_name
from cacheproxy.stores.redis.store import RedisStore

NAMESPACE = PARTITION.namespace_id


def entries(names, *, tags=("docs",), rows=None, generation=0):
    return [
        Entry(
            key(name),
            PARTITION,
            b"r" * 100,
            time.time() + 60,
            tags,
            None if rows is None else rows[place],
            generation,
        )
        for place, name in enumerate(names)
    ]


async def until(condition):
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture
async def open_store():
    """Return a function that opens a store, which the test's end closes."""
    stores = []

    async def make(url: str) -> RedisStore:
        store = RedisStore(url)
        stores.append(store)
        await store.open()
        return store

    yield make
    for store in stores:
        await store.close()


async def test_no_key_is_left_without_a_ttl_and_no_announcement_for_ever(
    redis_url, client, open_store
):
    store = await open_store(redis_url)
    await store.put_many(entries(range(20), rows=probes(20)))
    await store.purge(Scope(NAMESPACE, key=key(1)))
    await store.purge(Scope(NAMESPACE, tag="docs"))
    await store.purge(Scope(NAMESPACE))
    left = {name: client.ttl(name) for name in client.scan_iter()}
    assert set(left) == {b"cp:{shared}:generation", b"cp:{shared}:floors"}
    assert all(ttl > 0 for ttl in left.values())
    assert client.zcard("cp:{shared}:floors") == 3 + 1  # and since when they are complete


async def test_floors_older_than_an_hour_are_forgotten(redis_url, client, open_store):
    store = await open_store(redis_url)
    client.zadd(
        "cp:{shared}:floors", {"old": 1e6 * (time.time() - 3700), "new": 1e6 * (time.time() - 3500)}
    )
    await store.purge(Scope(NAMESPACE, key=key(1)))
    assert client.zscore("cp:{shared}:floors", "old") is None
    assert client.zscore("cp:{shared}:floors", "new") is not None


async def test_generations_rise_over_flushall(redis_url, client, open_store):
    store = await open_store(redis_url)
    await store.purge(Scope(NAMESPACE))
    before = store.purges.generation
    client.flushall()
    assert await store.purge(Scope(NAMESPACE)) == 0
    assert store.purges.generation > before


async def test_a_subscription_that_is_cut_comes_back_and_counts_all_as_missed(
    redis_url, client, open_store
):
    store, other = await open_store(redis_url), await open_store(redis_url)
    since = store.purges.moment
    client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    await until(lambda: not store.purges.is_untouched(NAMESPACE, key(1), since))
    await until(lambda: store.purges.is_listening and other.purges.is_listening)
    since = store.purges.moment
    await other.purge(Scope(NAMESPACE, key=key(1)))
    await until(lambda: not store.purges.is_untouched(NAMESPACE, key(1), since))


async def test_a_subscription_that_is_silent_is_noticed(start_redis, open_store, monkeypatch):
    monkeypatch.setattr(redis_channel, "_QUIET_S", 0.1)
    server = start_redis()
    store = await open_store(server.url)
    assert store.purges.is_listening
    await asyncio.sleep(0.5)  # asked for, it answers, and stays
    assert store.purges.is_listening
    since = store.purges.moment
    server.pause()
    await until(lambda: not store.purges.is_listening)
    server.resume()
    await until(lambda: store.purges.is_listening)
    assert not store.purges.is_untouched(NAMESPACE, key(1), since)


async def test_what_was_purged_while_nothing_was_heard_is_neither_read_nor_written(
    start_redis, open_store
):
    server = start_redis("--user", "deaf", "on", ">p", "~cp:*", "+@all", "resetchannels")
    hearing = await open_store(server.url)
    deaf = await open_store(f"redis://deaf:p@127.0.0.1:{server.port}")
    assert not deaf.purges.is_listening
    await deaf.put_many(entries(range(20)))
    await hearing.purge(Scope(NAMESPACE))
    assert await deaf.get_many([key(n) for n in range(20)]) == [None] * 20
    assert await deaf.put_many(entries(range(20))) == 0
    await hearing.put_many(entries([99], generation=hearing.purges.generation))
    # Replacing works although it cannot be told.
    assert await deaf.put_many(entries([99], generation=hearing.purges.generation)) == 1


async def test_a_message_that_is_not_ours_costs_a_reconnection(redis_url, client, open_store):
    store = await open_store(redis_url)
    since = store.purges.moment
    client.publish(CHANNEL, b"\xff not JSON")
    await until(lambda: store.purges.moment > since)
    await until(lambda: store.purges.is_listening)


async def test_a_full_redis_can_be_purged(start_redis, open_store):
    server = start_redis()
    store = await open_store(server.url)
    await store.put_many(entries(range(300), rows=probes(300)))
    await store.put_many(entries(["a"], tags=()))
    used = server.client().info("memory")["used_memory"]
    server.client().config_set("maxmemory", used - 100_000)
    assert await store.purge(Scope(NAMESPACE, tag="docs")) == 300
    assert await store.get_many([key(0), key("a")]) == [None, b"r" * 100]
    assert await store.put_many(entries([0])) == 0


async def test_a_purge_that_was_cut_short_is_over_when_it_is_repeated(
    redis_url, client, open_store
):
    store = await open_store(redis_url)
    client.sadd("cp:{shared}:running", f"{10**15} {scope_name(Scope(NAMESPACE))}")
    other = await open_store(redis_url)
    await store.put_many(entries(range(3)))
    assert await other.get_many([key(0)]) == [None]
    await store.purge(Scope(NAMESPACE))
    await until(lambda: not other._purging._known._running)
    assert client.smembers("cp:{shared}:running") == set()


async def test_a_hundred_purges_at_once_each_get_a_number(redis_url, client, open_store):
    stores = [await open_store(redis_url) for _ in range(4)]
    await stores[0].put_many(entries(range(100)))
    removed = await asyncio.gather(
        *(stores[n % 4].purge(Scope(NAMESPACE, key=key(n))) for n in range(100))
    )
    assert removed == [1] * 100
    floors = client.zrange("cp:{shared}:floors", 0, -1, withscores=True)
    assert len(floors) == 100 + 1  # and since when they are complete
    assert len({score for _, score in floors}) == len(floors)


async def test_a_purge_between_the_question_and_the_write_forbids_it(
    redis_url, client, open_store, monkeypatch
):
    store, other = await open_store(redis_url), await open_store(redis_url)
    admit, answers = store._purging.admit, []

    async def admit_and_be_late(ask, asked):
        answers.append(await admit(ask, asked))
        if len(answers) == 1:
            await other.purge(Scope(NAMESPACE, key=key(1)))
        return answers[-1]

    monkeypatch.setattr(store._purging, "admit", admit_and_be_late)
    assert await store.put_many(entries(range(3))) == 2
    assert answers == [[True, True, True], [True, False, True]]
    assert await store.get_many([key(n) for n in range(3)]) == [b"r" * 100, None, b"r" * 100]


def interrupt_once(store, monkeypatch, work):
    """Have `work` done after the first question of the store's next conversation."""
    conversation, interrupted = store._link.conversation, []

    @asynccontextmanager
    async def slow(**more):
        async with conversation(**more) as ask:

            async def ask_and_wait(commands):
                replies = await ask(commands)
                if not interrupted:
                    interrupted.append(True)
                    await work()
                return replies

            yield ask_and_wait

    monkeypatch.setattr(store._link, "conversation", slow)


async def test_of_two_purges_at_once_the_later_has_the_higher_number(
    redis_url, client, open_store, monkeypatch
):
    store, other = await open_store(redis_url), await open_store(redis_url)
    interrupt_once(store, monkeypatch, lambda: other.purge(Scope("f" * 32)))
    await store.purge(Scope(NAMESPACE))
    floors = dict(client.zrange("cp:{shared}:floors", 0, -1, withscores=True))
    assert floors[hex_id(NAMESPACE).encode()] > floors[hex_id("f" * 32).encode()]


async def test_a_purge_by_key_removes_what_was_written_while_it_got_its_number(
    redis_url, client, open_store, monkeypatch
):
    store, other = await open_store(redis_url), await open_store(redis_url)
    interrupt_once(store, monkeypatch, lambda: other.put_many(entries([1])))
    assert await store.purge(Scope(NAMESPACE, key=key(1))) == 1
    assert await store.get_many([key(1)]) == [None]


async def test_writes_go_on_beside_a_stream_of_purges(redis_url, client, open_store):
    store, other = await open_store(redis_url), await open_store(redis_url)
    rows = probes(200)
    done = asyncio.create_task(store.put_many(entries(range(200), rows=rows)))
    purged = 0
    while not done.done():
        await other.purge(Scope("f" * 32, key=key(purged)))
        purged += 1
    assert await done == 200
    assert purged > 0


@pytest.mark.parametrize("policy", ["volatile-ttl", "volatile-lru", "allkeys-random"])
async def test_a_purge_holds_although_redis_evicts_all_that_it_can(
    start_redis, open_store, policy, caplog
):
    server = start_redis("--maxmemory-policy", policy)
    store, other = await open_store(server.url), await open_store(server.url)
    late = entries(["late"], generation=store.purges.generation)
    since = other.purges.generation
    await store.purge(Scope(NAMESPACE))
    await until(lambda: other.purges.generation > since)
    await evict_everything(server.client())

    assert await other.put_many(late) == 0
    assert await other.put_many(entries(["new"], generation=other.purges.generation)) == 1
    assert await store.get_many([key("late"), key("new")]) == [None, b"r" * 100]
    assert "Redis has lost its notes of purges" in caplog.text


async def evict_everything(client) -> None:
    client.config_set("maxmemory", 1)
    async with asyncio.timeout(20):
        while client.dbsize():
            try:
                client.set("another's", "any", ex=60)
            except OutOfMemoryError:
                await asyncio.sleep(0.001)
    client.config_set("maxmemory", 0)


async def test_only_what_began_before_floors_were_lost_is_refused_and_by_every_process(
    redis_url, client, open_store
):
    store, other = await open_store(redis_url), await open_store(redis_url)
    await store.purge(Scope(NAMESPACE, key=key("other")))
    before = store.purges.generation
    await until(lambda: other.purges.generation == before)
    client.delete(FLOORS)
    assert await store.put_many(entries(["a"], generation=before)) == 0
    assert await other.put_many(entries(["b"], generation=before)) == 0
    for each, name in ((store, "a"), (other, "b"), (await open_store(redis_url), "c")):
        await until(lambda each=each: each.purges.generation > before)
        assert await each.put_many(entries([name], generation=each.purges.generation)) == 1


async def test_a_purge_that_was_forgotten_while_it_ran_is_heard_of_at_its_end(
    redis_url, client, open_store
):
    store, other = await open_store(redis_url), await open_store(redis_url)
    await store.put_many(entries(range(500)))
    begun = asyncio.Event()
    ask = store._purging.removal.remove

    async def remove(*given):
        client.delete(RUNNING)
        client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        await until(lambda: other.purges.is_listening and not other._purging._known._running)
        begun.set()
        return await ask(*given)

    store._purging.removal.remove = remove
    purging = asyncio.create_task(store.purge(Scope(NAMESPACE)))
    await begun.wait()
    since = other.purges.moment  # what it reads now, it might keep
    await purging
    await until(lambda: not other.purges.is_untouched(NAMESPACE, key(1), since))


@pytest.mark.parametrize("garbage", [b"garbage", b"-1", b"1e3", b"\xff", b"9" * 18, b"9" * 30, []])
async def test_a_number_that_is_none_is_replaced_by_the_next_purge(
    redis_url, client, open_store, garbage, caplog
):
    store = await open_store(redis_url)
    await store.put_many(entries(["a"]))
    before = store.purges.generation
    client.delete(GENERATION)
    if isinstance(garbage, bytes):
        client.set(GENERATION, garbage)
    else:
        client.rpush(GENERATION, "a list")
    assert await store.purge(Scope(NAMESPACE)) == 1
    assert before < store.purges.generation < 2**53
    assert int(client.get(GENERATION)) == store.purges.generation
    assert "holds no number of a purge" in caplog.text


async def test_a_store_opens_and_purges_over_garbage_in_all_that_is_kept_of_purges(
    redis_url, client, open_store
):
    client.set(GENERATION, b"garbage")
    client.sadd(RUNNING, b"garbage", b"7", b"x y")
    store = await open_store(redis_url)
    assert store.purges.is_listening
    await store.put_many(entries(["a"], generation=store.purges.generation))
    assert await store.purge(Scope(NAMESPACE)) == 1


async def test_a_process_that_starts_without_the_newest_number_can_write_where_was_purged(
    redis_url, client, open_store
):
    store = await open_store(redis_url)
    await store.purge(Scope(NAMESPACE))
    client.delete(GENERATION)
    late = await open_store(redis_url)
    assert await late.put_many(entries(["a"], generation=late.purges.generation)) == 1
