"""What is special to purges in one SQLite file: who finishes them, and what is kept of them."""

import asyncio
import itertools
import sqlite3
import time

import numpy as np
import pytest
from opened_stores import PARTITION, key

from cacheproxy.errors import StoreError
from cacheproxy.stores.embedded import listener, notices
from cacheproxy.stores.embedded.database import Database
from cacheproxy.stores.embedded.store import EmbeddedStore
from cacheproxy.stores.protocol import Entry
from cacheproxy.stores.purges import Scope

NAMESPACE = PARTITION.namespace_id


class Clock:
    def __init__(self):
        self.skew_s = 0.0

    def now(self):
        return time.time() + self.skew_s


@pytest.fixture
def path(tmp_path):
    return tmp_path / "cache.sqlite"


@pytest.fixture
async def open_store(path):
    stores = []

    async def make(**more) -> EmbeddedStore:
        stores.append(EmbeddedStore(path, max_bytes=2**30, **more))
        await stores[-1].open()
        return stores[-1]

    yield make
    for store in stores:
        await store.close()


def entries(names, record=b"r" * 100):
    return [Entry(key(name), PARTITION, record, 4e9) for name in names]


async def until(condition):
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


async def test_a_purge_that_was_cut_short_is_finished_by_a_later_sweep(path, open_store):
    store = await open_store()
    await store.put_many(entries(range(1000)))
    closing = []
    with pytest.raises(StoreError):
        await store.purge(
            Scope(NAMESPACE), lambda _: closing.append(asyncio.create_task(store.close()))
        )
    await asyncio.gather(*closing)
    clock = Clock()
    clock.skew_s = 120.0
    later = await open_store(now=clock.now)
    await later.sweep()
    assert (await later.census()).entries == 0
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM purges WHERE is_running").fetchone() == (0,)
    connection.close()


async def test_a_purge_that_runs_for_minutes_counts_all_that_it_names(open_store):
    clock = Clock()
    store = await open_store(now=clock.now)
    await store.put_many(entries(range(5000)))
    sweeps = []

    def progress(_):
        clock.skew_s += 45.0
        sweeps.append(asyncio.create_task(store.sweep()))

    removed = await store.purge(Scope(NAMESPACE), progress)
    await asyncio.gather(*sweeps)

    assert len(sweeps) > 5
    assert removed == 5000


async def test_a_purge_on_a_disk_so_slow_that_it_seems_abandoned_counts_all_that_it_names(
    open_store,
):
    moments = itertools.count(1_700_000_000, 90)  # each job takes longer than the rest of a purge
    store = await open_store(now=lambda: float(next(moments)))
    await store.put_many(entries(range(5000)))
    sweeps = []

    def progress(_):
        sweeps.append(asyncio.create_task(store.sweep()))

    removed = await store.purge(Scope(NAMESPACE), progress)
    await asyncio.gather(*sweeps)

    assert removed == 5000


def test_a_purge_is_abandoned_a_minute_after_it_last_removed_something(path):
    connection = Database(path).connect()
    purge = notices.begin_purge(connection, Scope(NAMESPACE), now=1000.0)
    assert notices.abandoned_purges(connection, now=1050.0) == []
    notices.remove_some(connection, purge, now=1050.0)
    assert notices.abandoned_purges(connection, now=1100.0) == []
    assert notices.abandoned_purges(connection, now=1111.0) == [purge]
    notices.finish_purge(connection, purge)
    assert notices.abandoned_purges(connection, now=1111.0) == []
    connection.close()


async def test_announcements_are_forgotten_in_time_and_generations_rise_on(path, open_store):
    clock = Clock()
    store = await open_store(now=clock.now)
    await store.put_many(entries(["a"]))
    await store.put_many(entries(["a"], b"another"))
    await store.purge(Scope(NAMESPACE))
    before = store.purges.generation
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM replacements").fetchone() == (1,)
    connection.close()
    clock.skew_s = 3700.0
    await store.sweep()
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM purges").fetchone() == (0,)
        assert connection.execute("SELECT count(*) FROM replacements").fetchone() == (0,)
    connection.close()
    clock.skew_s = -100.0
    await store.purge(Scope(NAMESPACE))
    assert store.purges.generation > before


async def test_a_file_that_is_replaced_counts_as_everything_missed(path, open_store):
    store = await open_store()
    await store.purge(Scope(NAMESPACE))
    before, since = store.purges.generation, store.purges.moment
    for file in path.parent.glob("cache.sqlite*"):
        file.unlink()
    await store.sweep()
    await until(lambda: store.purges.moment > since)
    assert not store.purges.is_untouched(NAMESPACE, key("a"), since)
    await store.purge(Scope(NAMESPACE))
    assert store.purges.generation > before


async def test_an_entry_that_is_written_again_with_its_probe_alone_is_nothing_new(open_store):
    store, other = await open_store(), await open_store()
    (first, second) = entries(["a", "b"])
    await other.put_many([first, second])
    since = store.purges.moment
    await other.put_many([first._replace(probe=np.eye(1, 32, dtype=np.float32)[0])])
    await other.put_many([second._replace(record=b"another")])
    await until(lambda: store.purges.moment > since)
    assert store.purges.is_untouched(NAMESPACE, first.key, since)
    assert not store.purges.is_untouched(NAMESPACE, second.key, since)


async def test_one_who_has_not_listened_for_long_counts_everything_as_missed(
    open_store, monkeypatch
):
    store, other = await open_store(), await open_store()
    since = store.purges.moment
    monkeypatch.setattr(listener, "REPLACEMENTS_KEPT_S", 0.0)
    await other.put_many(entries(["b"]))
    await until(lambda: store.purges.moment > since)
    assert not store.purges.is_untouched(NAMESPACE, key("a"), since)
