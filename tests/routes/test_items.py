"""The decisions of an items request, over real tiers, with a store that can be made to fail."""

import asyncio
import threading

import numpy as np
import pytest
from items_harness import (
    NAMESPACE,
    WORDS,
    encode,
    key_of,
    purged,
)

from cacheproxy.errors import InferenceFailed, NotCached, Overloaded
from cacheproxy.routes.exchange import Control, ItemsRequest
from cacheproxy.stores.purges import Scope


async def test_each_text_of_a_batch_takes_its_own_way_and_the_order_is_kept(start):
    harness = start()
    await harness.embed("a b", "c d")

    answer = await harness.embed("x y", "a b", "z", "c d")

    assert [served.outcome for served in answer.served] == ["miss", "hot", "miss", "hot"]
    for served, text in zip(answer.served, ["x y", "a b", "z", "c d"], strict=True):
        (ids,) = harness.tokenizer.encode([text])
        assert served.record.vector == encode(np.array([ids])).astype("<f4").tobytes()


async def test_texts_of_equal_ids_share_an_entry_in_text_and_in_ids(start):
    harness = start()
    await harness.embed("a b")

    assert await harness.outcomes("A  b", "A  B ", [4, 5], [0, 4, 5, 1]) == ["hot"] * 4
    assert harness.inferences == 1


async def test_without_the_hot_tier_the_exact_tier_answers_before_and_after_the_write(start):
    harness = start(hot_bytes=0)
    harness.store.stall()
    inferring = asyncio.create_task(harness.embed("a b", no_cache=True))
    await inferring
    assert await harness.outcomes("a b") == ["exact"]

    harness.store.stalled.set()
    await harness.settled()
    assert await harness.outcomes("a b") == ["exact"]
    assert harness.inferences == 1


async def test_a_store_that_always_fails_costs_no_request(start):
    harness = start(hot_bytes=0)
    harness.store.failures = 10**9

    assert await harness.outcomes("a b", "c d") == ["miss", "miss"]
    assert harness.value("store_errors_total", kind="connection") >= 1


async def test_a_store_that_stalls_costs_its_deadline_and_no_request(start):
    harness = start(hot_bytes=0, deadline_s=0.01)
    harness.store.stall()

    answer = await asyncio.wait_for(harness.embed("a b"), 10)

    assert answer.served[0].outcome == "miss"
    assert harness.value("store_errors_total", kind="timeout") == 1


async def test_what_is_known_by_its_key_and_gone_is_asked_of_the_store_once(start):
    harness = start(hot_bytes=0, deadline_s=0.01)
    await harness.embed("a b")
    await harness.settled()
    ((key, _),) = harness.store.written.items()
    harness.store.stall()
    asked = harness.store.calls

    known = await harness.route.repeated.from_exact(NAMESPACE.id, key)
    request = ItemsRequest(NAMESPACE, ["a b"], Control())
    answer = await asyncio.wait_for(harness.route.serve(request, known), 10)

    assert not known.is_hit
    assert answer.served[0].outcome == "miss"
    assert answer.stages_s["exact"] == known.stages_s["exact"]
    assert harness.store.calls == asked + 1
    assert harness.value("store_errors_total", kind="timeout") == 1


async def damaged(harness, damage):
    await harness.embed("a b")
    await harness.settled()
    ((key, entry),) = harness.store.written.items()
    harness.store.written[key] = entry._replace(record=damage(entry.record))


@pytest.mark.parametrize(
    "damage",
    [
        lambda record: record[:-1],
        lambda record: record[:60] + bytes([record[60] ^ 1]) + record[61:],
        lambda record: b"foreign",
        lambda record: b"",
    ],
)
async def test_a_damaged_record_is_a_miss_and_is_overwritten(start, damage):
    harness = start(hot_bytes=0)
    await damaged(harness, damage)

    assert await harness.outcomes("a b") == ["miss"]
    await harness.settled()
    assert await harness.outcomes("a b") == ["exact"]
    assert harness.value("undecodable_records_total") == 1


async def test_another_keys_record_is_never_served(start):
    harness = start(hot_bytes=0)
    await harness.embed("a b", "c d")
    await harness.settled()
    (one, first), (two, second) = harness.store.written.items()
    harness.store.written.update({one: second, two: first})

    assert await harness.outcomes("a b", "c d") == ["miss", "miss"]


async def test_a_text_that_cannot_be_inferred_fails_its_request_and_not_its_mates(start):
    harness = start()
    with pytest.raises(InferenceFailed):
        await harness.embed("a b", "poison", "c d")

    assert await harness.outcomes("a b", "c d") == ["hot", "hot"]
    with pytest.raises(InferenceFailed):
        await harness.embed("poison")


async def test_no_store_joins_no_flight_and_leaves_nothing(start):
    harness = start()

    assert await harness.outcomes("a b", no_store=True) == ["miss"]
    await harness.settled()
    assert harness.store.written == {}
    assert await harness.outcomes("a b", only_if_cached=False) == ["miss"]


async def test_only_if_cached_raises_rather_than_infer(start):
    harness = start()
    await harness.embed("a b")

    assert await harness.outcomes("a b", only_if_cached=True) == ["hot"]
    with pytest.raises(NotCached):
        await harness.embed("a b", "c d", only_if_cached=True)
    assert harness.inferences == 1


async def test_a_client_that_disconnects_does_not_affect_the_others(start):
    harness = start()
    leaver = asyncio.create_task(harness.embed("a b"))
    stayer = asyncio.create_task(harness.embed("a b"))
    while not harness.route._inference._flights._flights:
        await asyncio.sleep(0)
    leaver.cancel()

    assert (await stayer).served[0].outcome in ("miss", "hot")
    assert harness.inferences == 1


async def test_what_is_stored_carries_its_expiry_tags_and_partition(start):
    harness = start(threshold=0.9)
    await harness.embed("a b c d", ttl_s=60.0, tags=("docs",))
    await harness.settled()
    (entry,) = harness.store.written.values()

    assert entry.tags == ("docs",)
    assert entry.partition.namespace_id == NAMESPACE.id
    assert entry.probe is not None
    record = (await harness.embed("a b c d")).served[0].record
    assert entry.expires_at == record.expires_at == record.created_at + 60


async def test_only_what_is_on_its_way_into_the_store_is_said_to_be_stored(start):
    harness = start(queue_entries=1)
    harness.store.stall()
    asked = [harness.embed("a b"), harness.embed("c d"), harness.embed("c d")]
    answers = await asyncio.gather(*asked)

    assert [answer.served[0].is_stored for answer in answers] == [True, False, False]
    (dropped,) = (await harness.embed("e f", no_store=True)).served
    assert not dropped.is_stored
    harness.store.stalled.set()


@pytest.mark.parametrize("hot_bytes", [0, 1_000_000])
async def test_entries_of_one_request_expire_apart_and_the_answers_say_when(start, hot_bytes):
    harness = start(hot_bytes=hot_bytes)
    texts = [f"{a} {b}" for a in "abcde" for b in "vwxyz"]
    served = (await harness.embed(*texts)).served
    await harness.settled()

    lives_s = [one.record.expires_at - one.record.created_at for one in served]
    assert len(set(lives_s)) > 20  # two may be the same by chance
    assert all(3_240 <= life_s <= 3_600.001 for life_s in lives_s)
    for one in served:
        assert harness.store.written[one.record.key].expires_at == one.record.expires_at


async def test_a_ttl_requested_by_the_client_is_exact_to_the_second(start):
    harness = start()
    for one in (await harness.embed("a b", "c d", "e f", ttl_s=60.0)).served:
        assert one.record.expires_at - one.record.created_at == pytest.approx(60, abs=1e-3)


# Purges that this process hears of


async def test_what_is_purged_is_not_found_in_the_hot_tier_by_key_or_by_text(start):
    harness = start()
    await harness.embed("a b")
    await harness.settled()
    harness.store.written.clear()
    purged(harness)

    assert await harness.outcomes("a b", [4, 5]) == ["miss", "miss"]
    assert harness.inferences == 2
    assert await harness.outcomes("a b") == ["hot"]


async def test_what_was_read_before_a_purge_does_not_stay_in_the_hot_tier(start):
    harness = start()
    await harness.embed("a b")
    await harness.settled()
    purged(harness)
    harness.store.stall()
    before = harness.store.calls
    reading = asyncio.create_task(harness.embed("a b"))
    while harness.store.calls == before:
        await asyncio.sleep(0)
    purged(harness)
    harness.store.stalled.set()

    assert (await reading).served[0].outcome == "exact"
    assert harness.hot.get(key_of(harness, "a b")) is None


async def test_what_was_begun_before_a_purge_is_not_joined_after_it_nor_kept(start):
    harness = start()
    began = harness.store.purges.generation
    release = threading.Event()
    harness.hold = release
    before = asyncio.create_task(harness.embed("a b"))
    while not harness.inferences:
        await asyncio.sleep(0.001)
    purged(harness)
    after = asyncio.create_task(harness.embed("a b"))
    while harness.route._inference._flights.get(NAMESPACE.id, key_of(harness, "a b")) is None:
        await asyncio.sleep(0.001)
    release.set()

    assert [(await each).served[0].outcome for each in (before, after)] == ["miss", "miss"]
    assert harness.inferences == 2
    await harness.settled()
    (entry,) = harness.store.written.values()
    assert entry.generation == harness.store.purges.generation > began
    assert await harness.outcomes("a b") == ["hot"]


async def test_an_entry_carries_what_was_heard_when_its_inference_began(start):
    harness = start()
    harness.hold = threading.Event()
    purged(harness)
    began = harness.store.purges.generation
    asking = asyncio.create_task(harness.embed("a b"))
    while not harness.inferences:
        await asyncio.sleep(0.001)
    harness.store.purges.purged(Scope(NAMESPACE.id, tag="docs"), began + 1)
    harness.hold.set()
    await asking
    await harness.settled()

    (entry,) = harness.store.written.values()
    assert entry.generation == began
    assert harness.hot.get(key_of(harness, "a b")) is None


async def overload(harness) -> list[asyncio.Task]:
    """Ask for texts that wait, until one is refused; return those that were accepted."""
    harness.hold = threading.Event()
    accepted = []
    for a in WORDS[4:]:
        for b in WORDS[4:]:
            task = asyncio.create_task(harness.outcomes(f"{a} {b}"))
            await asyncio.sleep(0.01)
            if task.done():
                with pytest.raises(Overloaded):
                    task.result()
                return accepted
            accepted.append(task)
    raise AssertionError("nothing was refused")


async def test_while_overloaded_new_texts_are_refused_before_they_cost_anything(start):
    harness = start(max_wait_s=0.005)
    accepted = await overload(harness)
    calls, shed = harness.store.calls, harness.value("shed_total", reason="queue")

    with pytest.raises(Overloaded) as refused:
        await harness.embed("never asked for")

    assert refused.value.retry_after_s >= 1
    assert harness.store.calls == calls
    assert harness.value("shed_total", reason="queue") == shed + 1
    harness.hold.set()
    assert await asyncio.gather(*accepted) == [["miss"]] * len(accepted)


async def test_while_overloaded_hot_hits_are_served(start):
    harness = start(max_wait_s=0.005)
    await harness.embed("a b c d")
    accepted = await overload(harness)

    assert await harness.outcomes("a b c d") == ["hot"]
    harness.hold.set()
    await asyncio.gather(*accepted)


async def test_while_overloaded_the_exact_tier_is_asked_where_it_often_has_the_answer(start):
    harness = start(max_wait_s=0.005, hot_bytes=0)
    await harness.embed("a b c d")
    await harness.settled()
    for _ in range(100):
        assert await harness.outcomes("a b c d") == ["exact"]
    accepted = await overload(harness)

    assert await harness.outcomes("a b c d") == ["exact"]
    with pytest.raises(Overloaded):
        await harness.embed("never asked for")
    harness.hold.set()
    await asyncio.gather(*accepted)


async def test_only_if_cached_requests_are_not_refused_under_overload(start):
    harness = start(max_wait_s=0.005)
    accepted = await overload(harness)

    with pytest.raises(NotCached):
        await harness.embed("never asked for", only_if_cached=True)
    harness.hold.set()
    await asyncio.gather(*accepted)


async def test_an_overload_is_over_when_the_queue_has_run_empty(start):
    harness = start(max_wait_s=0.005)
    accepted = await overload(harness)
    harness.hold.set()
    await asyncio.gather(*accepted)
    deadline = asyncio.get_running_loop().time() + 10
    while harness.batcher.is_overloaded:
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.01)

    assert await harness.outcomes("x y z") == ["miss"]
