import asyncio

import numpy as np
import pytest
from faulty import FaultyStore

from cacheproxy.concurrency.breaker import BreakerPolicy
from cacheproxy.errors import StoreError
from cacheproxy.stores.protocol import Entry, Partition
from cacheproxy.stores.purges import Scope
from cacheproxy.telemetry.metrics import Metrics
from cacheproxy.tiers.writeback import WriteBack


@pytest.fixture
def metrics():
    return Metrics()


@pytest.fixture
def store():
    return FaultyStore()


IMPATIENT = BreakerPolicy(failures_in_a_row=1, first_pause_s=0.001, longest_pause_s=0.01)
PATIENT = BreakerPolicy(failures_in_a_row=1, first_pause_s=3_600, longest_pause_s=3_600)


@pytest.fixture
def make(store, metrics):
    """Return a function that makes a queue before the store, at a time that is told."""

    def make(*, max_entries=10_000, policy=IMPATIENT, clock=lambda: 0.0) -> WriteBack:
        return WriteBack(store, max_entries=max_entries, metrics=metrics, policy=policy, now=clock)

    return make


def entry(name: bytes, record: bytes = b"record") -> Entry:
    return Entry(name, Partition("0" * 32, "f"), record, 2.0)


def value(metrics, name, **labels):
    return metrics.registry.get_sample_value(f"cacheproxy_{name}", labels)


def dropped(metrics, reason):
    return value(metrics, "writeback_dropped_total", reason=reason)


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


async def test_what_is_queued_is_written_before_the_end(store, metrics, make):
    writeback = make(max_entries=10_000)
    writeback.start()
    for i in range(1_000):
        assert writeback.put(entry(b"%d" % i), 0)

    await writeback.stop(timeout_s=30)

    assert len(store.written) == 1_000


async def test_an_entry_can_be_read_until_the_store_has_it(store, metrics, make):
    store.stall()
    writeback = make(max_entries=10)
    writeback.start()
    writeback.put(entry(b"k"), 0)
    await asyncio.sleep(0)

    assert writeback.get(b"k") == b"record"
    store.stalled.set()
    await writeback.stop(timeout_s=30)
    assert writeback.get(b"k") is None
    assert store.written[b"k"].record == b"record"


async def test_what_waits_is_counted_by_keys_or_of_a_namespace_until_it_is_written(store, make):
    writeback = make()
    writeback.put(entry(b"k"), 0)
    writeback.put(entry(b"l"), 0)
    assert writeback.waiting("0" * 32, []) == 2
    assert writeback.waiting("1" * 32, []) == 0
    assert writeback.waiting("0" * 32, [b"k", b"other"]) == 1
    writeback.start()
    await until(lambda: not writeback.waiting("0" * 32, []))
    assert store.written.keys() == {b"k", b"l"}
    await writeback.stop(timeout_s=30)


async def test_a_newer_entry_of_a_key_that_is_being_written_is_written_too(store, metrics, make):
    store.stall()
    writeback = make(max_entries=10)
    writeback.start()
    writeback.put(entry(b"k", b"old"), 0)
    while not store.calls:
        await asyncio.sleep(0)
    writeback.put(entry(b"k", b"new"), 0)
    store.stalled.set()

    await writeback.stop(timeout_s=30)

    assert store.written[b"k"].record == b"new"


async def test_what_does_not_fit_is_dropped_and_counted(store, metrics, make):
    writeback = make(max_entries=2)

    assert [writeback.put(entry(name), 0) for name in (b"a", b"b", b"c", b"a")] == [
        *(True, True, False, True)
    ]
    assert dropped(metrics, "full") == 1


async def test_a_store_that_fails_once_still_gets_the_entry(store, metrics, make):
    store.failures = 1
    writeback = make(max_entries=10)
    writeback.start()
    writeback.put(entry(b"k"), 0)

    await writeback.stop(timeout_s=30)

    assert b"k" in store.written


async def test_entries_wait_while_the_store_takes_no_writes(store, metrics, make):
    store.kind, store.failures = "readonly", 10**9
    writeback = make()
    writeback.start()
    for i in range(600):
        writeback.put(entry(b"%d" % i), 0)
    await until(lambda: store.calls > 5)
    assert value(metrics, "store_breaker_state", op="put") >= 1
    assert value(metrics, "store_up") == 1
    assert writeback.get(b"0") == b"record"

    store.failures = 0
    await until(lambda: len(store.written) == 600)
    assert value(metrics, "store_breaker_state", op="put") == 0
    await writeback.stop(timeout_s=30)
    assert value(metrics, "writeback_stored_total") == 600


async def test_while_it_takes_none_one_entry_at_a_time_finds_out(store, metrics, make):
    sizes = []

    async def refuse(entries):
        sizes.append(len(entries))
        raise StoreError("no", "oom")

    store.put_many = refuse
    writeback = make()
    for i in range(600):
        writeback.put(entry(b"%d" % i), 0)
    writeback.start()
    await until(lambda: len(sizes) > 5)
    await writeback.stop(timeout_s=30)

    assert sizes[0] == 256
    assert set(sizes[1:]) == {1}


@pytest.mark.parametrize("kind", ["invalid", "other"])
async def test_an_entry_that_is_rejected_individually_is_dropped_alone(store, metrics, make, kind):
    write = store.put_many

    async def put_many(entries):
        if any(each.key == b"poison" for each in entries):
            raise StoreError("not this one", kind)
        return await write(entries)

    store.put_many = put_many
    writeback = make()
    for i in range(300):
        writeback.put(entry(b"poison" if i == 100 else b"%d" % i), 0)
    writeback.start()
    await until(lambda: not value(metrics, "writeback_queue_entries"))

    assert len(store.written) == 299
    assert dropped(metrics, "error") == 1
    await writeback.stop(timeout_s=30)


async def test_an_entry_that_expires_while_it_waits_is_neither_read_nor_written(
    store, metrics, make
):
    now = [0.0]
    store.failures = 10**9
    writeback = make(clock=lambda: now[0])
    writeback.start()
    writeback.put(entry(b"k"), 0)
    await until(lambda: store.calls > 2)
    now[0] = 2.0
    store.failures = 0

    assert writeback.get(b"k") is None
    await until(lambda: dropped(metrics, "expired") == 1)
    writeback.put(Entry(b"next", Partition("0" * 32, "f"), b"record", 5.0), 0)
    await writeback.stop(timeout_s=30)
    assert list(store.written) == [b"next"]


async def test_the_end_tries_a_store_that_took_no_writes_once_more(store, metrics, make):
    store.failures = 1
    writeback = make(policy=PATIENT)
    writeback.start()
    for i in range(1_000):
        writeback.put(entry(b"%d" % i), 0)
    await until(lambda: value(metrics, "store_breaker_state", op="put") == 2)

    await asyncio.wait_for(writeback.stop(timeout_s=30), 10)

    assert len(store.written) == 1_000


async def test_shutdown_does_not_wait_for_a_store_that_refuses_writes(store, metrics, make):
    store.failures = 10**9
    writeback = make(policy=PATIENT)
    writeback.start()
    for i in range(1_000):
        writeback.put(entry(b"%d" % i), 0)
    await until(lambda: store.calls)

    await asyncio.wait_for(writeback.stop(timeout_s=3_600), 10)

    assert store.calls == 2
    assert dropped(metrics, "shutdown") == 1_000


async def test_the_end_does_not_wait_for_a_stalled_store_and_counts_what_is_lost(
    store, metrics, make
):
    store.stall()
    writeback = make(max_entries=10)
    writeback.start()
    writeback.put(entry(b"k"), 0)

    await asyncio.wait_for(writeback.stop(timeout_s=0.01), 10)

    assert dropped(metrics, "shutdown") == 1


async def test_what_the_store_leaves_out_for_a_purge_is_counted_as_dropped(store, metrics, make):
    async def leave_out(entries):
        return len(entries) - 1

    store.put_many = leave_out
    writeback = make()
    writeback.put(entry(b"a"), 0)
    writeback.put(entry(b"b"), 0)
    writeback.start()
    await writeback.stop(timeout_s=30)

    assert dropped(metrics, "purged") == 1
    assert metrics.registry.get_sample_value("cacheproxy_writeback_stored_total") == 1


async def test_what_was_begun_before_a_purge_does_not_take_the_place_of_what_came_after(
    store, metrics, make
):
    writeback = make()
    writeback.put(entry(b"k", b"new")._replace(generation=2), 0)

    assert writeback.put(entry(b"k", b"old")._replace(generation=1), 0)
    assert writeback.get(b"k") == b"new"
    assert dropped(metrics, "purged") == 1


async def test_what_is_purged_is_not_read_on_its_way_into_the_store(store, metrics, make):
    writeback = make()
    writeback.put(entry(b"k"), store.purges.moment)
    assert writeback.get(b"k") == b"record"
    store.purges.purged(Scope("0" * 32), 1)
    assert writeback.get(b"k") is None

    writeback.put(entry(b"k", b"new")._replace(generation=1), store.purges.moment)
    assert writeback.get(b"k") == b"new"


async def test_an_entry_whose_probe_is_still_to_come_is_read_at_once_and_written_once(
    store, metrics, make
):
    sizes = []
    write = store.put_many

    async def put_many(entries):
        sizes.append(len(entries))
        return await write(entries)

    store.put_many = put_many
    writeback = make()
    writeback.start()
    comes = asyncio.get_running_loop().create_future()
    probe = np.ones(4, np.float32)
    comes.add_done_callback(lambda _: writeback.put(entry(b"k")._replace(probe=probe), 0))
    writeback.put(entry(b"k"), 0, comes)
    writeback.put(entry(b"other"), 0)
    await until(lambda: b"other" in store.written)
    await asyncio.sleep(0.05)

    assert writeback.get(b"k") is not None
    assert b"k" not in store.written
    comes.set_result(None)
    await until(lambda: b"k" in store.written)
    assert store.written[b"k"].probe is probe
    await writeback.stop(timeout_s=30)
    assert sizes == [1, 1]


async def test_at_shutdown_nothing_is_waited_for(store, make):
    writeback = make()
    writeback.start()
    writeback.put(entry(b"k"), 0, asyncio.get_running_loop().create_future())
    await writeback.stop(timeout_s=30)
    assert list(store.written) == [b"k"]
