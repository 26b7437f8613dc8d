import asyncio

import numpy as np
import pytest
from faulty import FaultyStore

from cacheproxy.concurrency.breaker import BreakerPolicy
from cacheproxy.stores.protocol import Entry, Partition
from cacheproxy.telemetry.metrics import Metrics
from cacheproxy.tiers.guard import StoreGuard

PARTITION = Partition("0" * 32, "f")
PROBES = np.ones((2, 3), np.float32)
IMPATIENT = BreakerPolicy(failures_in_a_row=3, first_pause_s=0.001, longest_pause_s=0.01)
PATIENT = BreakerPolicy(failures_in_a_row=3, first_pause_s=3_600, longest_pause_s=3_600)


@pytest.fixture
def metrics():
    return Metrics()


@pytest.fixture
async def guard_of(metrics):
    """Return a function that makes the guard of a store."""
    made = []

    def make(store, *, deadline_s=5.0, **more) -> StoreGuard:
        made.append(StoreGuard(store, deadline_s=deadline_s, metrics=metrics, **more))
        return made[-1]

    yield make
    for guard in made:
        await guard.close()


def value(metrics, name, **labels):
    return metrics.registry.get_sample_value(f"cacheproxy_{name}", labels)


async def test_what_the_store_answers_is_passed_on(metrics, guard_of):
    store = FaultyStore()
    await store.put_many([Entry(b"k", PARTITION, b"record", 2.0)])
    guard = guard_of(store)

    assert await guard.get_many([b"k", b"other"]) == [b"record", None]
    assert value(metrics, "store_up") == 1


async def test_a_store_that_fails_is_a_miss_and_counted(metrics, guard_of):
    store = FaultyStore()
    store.failures = 2
    guard = guard_of(store)

    assert await guard.get_many([b"k"]) == [None]
    assert await guard.nearest(PARTITION, np.ones((2, 3), np.float32)) == [None, None]
    assert value(metrics, "store_errors_total", kind="connection") == 2
    assert value(metrics, "store_up") == 0


async def test_a_store_that_stalls_is_a_miss_after_the_deadline(metrics, guard_of):
    store = FaultyStore()
    store.stall()
    guard = guard_of(store, deadline_s=0.01)

    assert await asyncio.wait_for(guard.get_many([b"k"]), 10) == [None]
    assert value(metrics, "store_errors_total", kind="timeout") == 1

    store.stalled.set()
    assert await guard.get_many([b"k"]) == [None]
    assert value(metrics, "store_up") == 1


async def test_lookups_that_come_together_are_asked_together_and_answered_apart(metrics, guard_of):
    store = FaultyStore()
    names = [f"k{i}".encode() for i in range(40)]
    await store.put_many([Entry(name, PARTITION, b"record " + name, 2.0) for name in names])
    guard = guard_of(store)
    asked = [[*names[i : i + 3], b"absent"] for i in range(0, 40, 3)]

    store.stall()
    tasks = [asyncio.ensure_future(guard.get_many(keys)) for keys in asked]
    await asyncio.sleep(0)  # lets all of them begin
    store.stalled.set()
    found = await asyncio.gather(*tasks)

    assert found == [[*(b"record " + key for key in keys[:-1]), None] for keys in asked]
    calls = value(metrics, "store_op_duration_seconds_count", op="get")
    assert calls <= 2  # the first alone, all others with the second


async def test_a_lookup_that_waits_behind_a_stalled_one_keeps_its_own_deadline(metrics, guard_of):
    store = FaultyStore()
    store.stall()
    guard = guard_of(store, deadline_s=0.2)
    loop = asyncio.get_running_loop()

    async def seconds_of(keys) -> float:
        started = loop.time()
        assert await guard.get_many(keys) == [None]
        return loop.time() - started

    times = await asyncio.wait_for(asyncio.gather(seconds_of([b"a"]), seconds_of([b"b"])), 10)
    assert max(times) < 0.39  # two deadlines would be 0.4


async def test_a_caller_that_leaves_takes_nobody_else_along(metrics, guard_of):
    store = FaultyStore()
    await store.put_many([Entry(b"k", PARTITION, b"record", 2.0)])
    guard = guard_of(store)

    store.stall()
    leaving, staying = (asyncio.ensure_future(guard.get_many([b"k"])) for _ in range(2))
    await asyncio.sleep(0)  # lets both begin
    leaving.cancel()
    store.stalled.set()

    assert await staying == [b"record"]
    assert leaving.cancelled()


async def opened(guard, store) -> None:
    store.failures = 3
    for _ in range(3):
        await guard.get_many([b"k"])


async def test_after_some_failures_the_store_is_not_asked_any_more(metrics, guard_of):
    store = FaultyStore()
    guard = guard_of(store, policy=PATIENT)
    await opened(guard, store)

    assert await guard.get_many([b"k"]) == [None]
    assert store.calls == 3
    assert value(metrics, "store_breaker_state", op="get") == 2
    assert value(metrics, "store_skipped_total", op="get") == 1
    assert value(metrics, "store_up") == 0


async def test_each_kind_of_lookup_is_cut_off_by_itself(metrics, guard_of):
    store = FaultyStore()
    guard = guard_of(store, policy=PATIENT)
    await opened(guard, store)

    await guard.nearest(PARTITION, PROBES)

    assert store.calls == 4
    assert value(metrics, "store_breaker_state", op="nearest") == 0


async def test_recovery_of_a_store_is_detected_without_a_request(metrics, guard_of):
    store = FaultyStore()
    await store.put_many([Entry(b"k", PARTITION, b"record", 2.0)])
    guard = guard_of(store, policy=IMPATIENT)
    await opened(guard, store)
    store.failures = 5

    async with asyncio.timeout(10):
        while value(metrics, "store_breaker_state", op="get"):
            await asyncio.sleep(0.001)

    assert value(metrics, "store_up") == 1
    assert value(metrics, "store_errors_total", kind="connection") == 8
    assert await guard.get_many([b"k"]) == [b"record"]


async def test_no_request_waits_for_a_probe_of_a_stalled_store(metrics, guard_of):
    store = FaultyStore()
    guard = guard_of(store, policy=IMPATIENT)
    await opened(guard, store)
    store.stall()
    async with asyncio.timeout(10):
        while value(metrics, "store_breaker_state", op="get") != 1:
            await asyncio.sleep(0.001)

        assert await guard.get_many([b"k"]) == [None]

    assert value(metrics, "store_breaker_state", op="get") == 1


async def test_mistakes_in_calls_say_nothing_against_the_store(metrics, guard_of):
    store = FaultyStore()
    store.kind, store.failures = "invalid", 10
    guard = guard_of(store, policy=PATIENT)
    for _ in range(10):
        assert await guard.get_many([b"k"]) == [None]

    assert store.calls == 10
    assert value(metrics, "store_errors_total", kind="invalid") == 10
    assert value(metrics, "store_breaker_state", op="get") == 0
    assert value(metrics, "store_up") == 1


async def test_lookups_that_wait_for_a_stalled_store_wait_for_one_deadline_at_most(
    metrics, guard_of
):
    store = FaultyStore()
    store.stall()
    guard = guard_of(store, deadline_s=0.2)
    loop = asyncio.get_running_loop()
    waited = []

    async def look_up(n: int) -> None:
        await asyncio.sleep(n / 1_000)
        began = loop.time()
        assert await guard.get_many([b"%d" % n]) == [None]
        waited.append(loop.time() - began)

    await asyncio.gather(*(look_up(n) for n in range(200)))

    assert max(waited) < 0.39  # two deadlines would be 0.4


async def test_a_request_that_has_spent_its_time_on_one_lookup_makes_no_other(metrics, guard_of):
    store = FaultyStore()
    guard = guard_of(store, deadline_s=5)

    assert await guard.nearest(PARTITION, PROBES, spent_s=5) == [None, None]
    assert store.calls == 0
    assert value(metrics, "store_breaker_state", op="nearest") == 0
    assert value(metrics, "store_skipped_total", op="nearest") == 1


async def test_an_exception_in_a_store_is_a_miss_and_counted(metrics, guard_of):
    store = FaultyStore()

    async def broken(keys):
        raise KeyError("a mistake of ours")

    store.get_many = broken
    assert await guard_of(store).get_many([b"k"]) == [None]
    assert value(metrics, "store_errors_total", kind="other") == 1
