import asyncio
from dataclasses import replace

import pytest
from faulty import FaultyStore

import cacheproxy.tiers.writeback as module
from cacheproxy.metrics import Metrics
from cacheproxy.stores.purges import Scope
from cacheproxy.stores.store import Entry, Partition
from cacheproxy.tiers.writeback import WriteBack


@pytest.fixture
def metrics():
    return Metrics()


@pytest.fixture
def store():
    return FaultyStore()


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(module, "_RETRY_S", 0.001)


def entry(name: bytes, record: bytes = b"record") -> Entry:
    return Entry(name, Partition("0" * 32, "f"), record, 2.0)


def dropped(metrics, reason):
    return metrics.registry.get_sample_value(
        "cacheproxy_writeback_dropped_total", {"reason": reason}
    )


async def test_what_is_queued_is_written_before_the_end(store, metrics):
    writeback = WriteBack(store, max_entries=10_000, metrics=metrics)
    writeback.start()
    for i in range(1_000):
        assert writeback.put(entry(b"%d" % i), 0)

    await writeback.stop(timeout_s=30)

    assert len(store.written) == 1_000


async def test_an_entry_can_be_read_until_the_store_has_it(store, metrics):
    store.stall()
    writeback = WriteBack(store, max_entries=10, metrics=metrics)
    writeback.start()
    writeback.put(entry(b"k"), 0)
    await asyncio.sleep(0)

    assert writeback.get(b"k") == b"record"
    store.stalled.set()
    await writeback.stop(timeout_s=30)
    assert writeback.get(b"k") is None
    assert store.written[b"k"].record == b"record"


async def test_a_newer_entry_of_a_key_that_is_being_written_is_written_too(store, metrics):
    store.stall()
    writeback = WriteBack(store, max_entries=10, metrics=metrics)
    writeback.start()
    writeback.put(entry(b"k", b"old"), 0)
    while not store.calls:
        await asyncio.sleep(0)
    writeback.put(entry(b"k", b"new"), 0)
    store.stalled.set()

    await writeback.stop(timeout_s=30)

    assert store.written[b"k"].record == b"new"


async def test_what_does_not_fit_is_dropped_and_counted(store, metrics):
    writeback = WriteBack(store, max_entries=2, metrics=metrics)

    assert [writeback.put(entry(name), 0) for name in (b"a", b"b", b"c", b"a")] == [
        *(True, True, False, True)
    ]
    assert dropped(metrics, "full") == 1


async def test_a_store_that_fails_once_still_gets_the_entry(store, metrics):
    store.failures = 1
    writeback = WriteBack(store, max_entries=10, metrics=metrics)
    writeback.start()
    writeback.put(entry(b"k"), 0)

    await writeback.stop(timeout_s=30)

    assert b"k" in store.written


async def test_a_store_that_keeps_failing_costs_the_entry_and_not_those_after_it(store, metrics):
    store.failures = module._ATTEMPTS
    writeback = WriteBack(store, max_entries=10, metrics=metrics)
    writeback.start()
    writeback.put(entry(b"lost"), 0)
    while writeback.get(b"lost"):
        await asyncio.sleep(0.001)
    writeback.put(entry(b"kept"), 0)

    await writeback.stop(timeout_s=30)

    assert list(store.written) == [b"kept"]
    assert dropped(metrics, "error") == 1


async def test_the_end_does_not_wait_for_a_stalled_store_and_counts_what_is_lost(store, metrics):
    store.stall()
    writeback = WriteBack(store, max_entries=10, metrics=metrics)
    writeback.start()
    writeback.put(entry(b"k"), 0)

    await asyncio.wait_for(writeback.stop(timeout_s=0.01), 10)

    assert dropped(metrics, "shutdown") == 1


async def test_what_the_store_leaves_out_for_a_purge_is_counted_as_dropped(store, metrics):
    async def leave_out(entries):
        return len(entries) - 1

    store.put_many = leave_out
    writeback = WriteBack(store, max_entries=10, metrics=metrics)
    writeback.put(entry(b"a"), 0)
    writeback.put(entry(b"b"), 0)
    writeback.start()
    await writeback.stop(timeout_s=30)

    assert dropped(metrics, "purged") == 1
    assert metrics.registry.get_sample_value("cacheproxy_writeback_stored_total") == 1


async def test_what_was_begun_before_a_purge_does_not_take_the_place_of_what_came_after(
    store, metrics
):
    writeback = WriteBack(store, max_entries=10, metrics=metrics)
    writeback.put(replace(entry(b"k", b"new"), generation=2), 0)

    assert writeback.put(replace(entry(b"k", b"old"), generation=1), 0)
    assert writeback.get(b"k") == b"new"
    assert dropped(metrics, "purged") == 1


async def test_what_is_purged_is_not_read_on_its_way_into_the_store(store, metrics):
    writeback = WriteBack(store, max_entries=10, metrics=metrics)
    writeback.put(entry(b"k"), store.purges.moment)
    assert writeback.get(b"k") == b"record"
    store.purges.purged(Scope("0" * 32), 1)
    assert writeback.get(b"k") is None

    writeback.put(replace(entry(b"k", b"new"), generation=1), store.purges.moment)
    assert writeback.get(b"k") == b"new"
