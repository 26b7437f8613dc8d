import asyncio

import numpy as np
import pytest
from faulty import FaultyStore

from cacheproxy.metrics import Metrics
from cacheproxy.stores.store import Entry, Partition
from cacheproxy.tiers.guard import StoreGuard

PARTITION = Partition("0" * 32, "f")


@pytest.fixture
def metrics():
    return Metrics()


def value(metrics, name, **labels):
    return metrics.registry.get_sample_value(f"cacheproxy_{name}", labels)


async def test_what_the_store_answers_is_passed_on(metrics):
    store = FaultyStore()
    await store.put_many([Entry(b"k", PARTITION, b"record", 2.0)])
    guard = StoreGuard(store, deadline_s=5, metrics=metrics)

    assert await guard.get_many([b"k", b"other"]) == [b"record", None]
    assert value(metrics, "store_up") == 1


async def test_a_store_that_fails_is_a_miss_and_counted(metrics):
    store = FaultyStore()
    store.failures = 2
    guard = StoreGuard(store, deadline_s=5, metrics=metrics)

    assert await guard.get_many([b"k"]) == [None]
    assert await guard.nearest(PARTITION, np.ones((2, 3), np.float32)) == [None, None]
    assert value(metrics, "store_errors_total", kind="readonly") == 2
    assert value(metrics, "store_up") == 0


async def test_a_store_that_stalls_is_a_miss_after_the_deadline(metrics):
    store = FaultyStore()
    store.stall()
    guard = StoreGuard(store, deadline_s=0.01, metrics=metrics)

    assert await asyncio.wait_for(guard.get_many([b"k"]), 10) == [None]
    assert value(metrics, "store_errors_total", kind="timeout") == 1

    store.stalled.set()
    assert await guard.get_many([b"k"]) == [None]
    assert value(metrics, "store_up") == 1


async def test_lookups_that_come_together_are_asked_together_and_answered_apart(metrics):
    store = FaultyStore()
    names = [f"k{i}".encode() for i in range(40)]
    await store.put_many([Entry(name, PARTITION, b"record " + name, 2.0) for name in names])
    guard = StoreGuard(store, deadline_s=5, metrics=metrics)
    asked = [[*names[i : i + 3], b"absent"] for i in range(0, 40, 3)]

    found = await asyncio.gather(*(guard.get_many(keys) for keys in asked))

    assert found == [[*(b"record " + key for key in keys[:-1]), None] for keys in asked]
    calls = value(metrics, "store_op_duration_seconds_count", op="get")
    assert calls <= 2  # the first alone, all others with the second


async def test_a_lookup_that_waits_behind_a_stalled_one_keeps_its_own_deadline(metrics):
    store = FaultyStore()
    store.stall()
    guard = StoreGuard(store, deadline_s=0.2, metrics=metrics)
    loop = asyncio.get_running_loop()

    async def seconds_of(keys) -> float:
        started = loop.time()
        assert await guard.get_many(keys) == [None]
        return loop.time() - started

    times = await asyncio.wait_for(asyncio.gather(seconds_of([b"a"]), seconds_of([b"b"])), 10)
    assert max(times) < 0.39  # two deadlines would be 0.4


async def test_a_caller_that_leaves_takes_nobody_else_along(metrics):
    store = FaultyStore()
    await store.put_many([Entry(b"k", PARTITION, b"record", 2.0)])
    guard = StoreGuard(store, deadline_s=5, metrics=metrics)

    leaving, staying = (asyncio.ensure_future(guard.get_many([b"k"])) for _ in range(2))
    await asyncio.sleep(0)
    leaving.cancel()

    assert await staying == [b"record"]
    assert leaving.cancelled()
