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
