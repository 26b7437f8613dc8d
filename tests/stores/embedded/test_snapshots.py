"""Snapshots of the graphs: what a restart finds by probe, whatever happened before it."""

import asyncio
import logging
import shutil
import sqlite3
import stat
from pathlib import Path

import numpy as np
import pytest
from embedded_entries import NOW, PARTITION, entries, key, nearest_once_ready, opened
from unit_probes import random_probes

from cacheproxy.stores.embedded.index import codes, indexing, snapshots
from cacheproxy.stores.purges import Scope

PROBES = random_probes(1100)


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(codes, "_CENTRED_FROM", 100)
    monkeypatch.setattr(snapshots, "SMALLEST", 100)
    monkeypatch.setattr(indexing, "_SAVED_ROWS", 100)


def files(path: Path) -> list[Path]:
    return sorted(snapshots.folder_of(path).glob("*"))


async def fill(path: Path, count: int = 500) -> None:
    async with opened(path) as store:
        await store.put_many(entries(range(count), probes=PROBES))


async def keys_found(store, probes: np.ndarray) -> list[bytes | None]:
    found = await store.nearest(PARTITION, probes)
    return [None if one is None else one.key for one in found]


async def documents(store) -> int:
    await store.sweep()
    return store.stats().index.documents


@pytest.mark.parametrize("count", [600, 1100])  # of centred and of turned probes
async def test_the_first_lookup_after_a_restart_finds_what_was_there_before(path, count):
    await fill(path, count)
    async with opened(path) as store:
        assert await keys_found(store, PROBES[:count]) == [key(n) for n in range(count)]


async def test_without_a_snapshot_the_first_lookup_finds_nothing(path):
    await fill(path)
    shutil.rmtree(snapshots.folder_of(path))
    async with opened(path) as store:
        assert await keys_found(store, PROBES[:1]) == [None]
        assert (await nearest_once_ready(store, PROBES[0])).key == key(0)


async def test_entries_written_after_the_snapshot_are_found_in_the_end(path):
    await fill(path, 550)
    async with opened(path, is_indexing=False) as store:
        await store.put_many(entries(range(550, 600), probes=PROBES[550:]))
    async with opened(path) as store:
        assert await keys_found(store, PROBES[:550]) == [key(n) for n in range(550)]
        async with asyncio.timeout(30):
            while await keys_found(store, PROBES[:600]) != [key(n) for n in range(600)]:
                pass


async def test_what_was_purged_replaced_or_expired_since_is_not_found(path):
    clock = [NOW]
    async with opened(path, now=lambda: clock[0]) as store:
        await store.put_many(entries(range(300), probes=PROBES))
        await store.put_many(entries(range(300, 400), expires_at=NOW + 1, probes=PROBES[300:]))
        tagged = entries(range(400, 500), probes=PROBES[400:])
        await store.put_many([entry._replace(tags=("old",)) for entry in tagged])
    clock[0] = NOW + 2
    async with opened(path, is_indexing=False, now=lambda: clock[0]) as store:
        assert await store.purge(Scope(PARTITION.namespace_id, tag="old")) == 100
        await store.put_many(entries(range(100), probes=-PROBES[:100]))
    async with opened(path, now=lambda: clock[0]) as store:
        found = await store.nearest(PARTITION, PROBES[:500])
        for n, one in enumerate(found):
            assert one is not None
            assert one.key == key(n) if 100 <= n < 300 else one.score < 0.999
        async with asyncio.timeout(30):
            while await documents(store) != 300:
                await store.nearest(PARTITION, PROBES[:1])
        assert await keys_found(store, -PROBES[:100]) == [key(n) for n in range(100)]


async def test_a_purge_that_is_still_running_hides_what_the_snapshot_holds(path):
    await fill(path)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(
        "INSERT INTO purges (namespace_id, namespace, made_at, is_running)"
        " SELECT ?, substr(partition, 1, 16), ?, TRUE FROM entries LIMIT 1",
        (PARTITION.namespace_id, NOW),
    )
    connection.close()
    async with opened(path) as store:
        assert await keys_found(store, PROBES[:3]) == [None] * 3


def flip(file: Path, _: sqlite3.Connection) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def cut(file: Path, _: sqlite3.Connection) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def empty(file: Path, _: sqlite3.Connection) -> None:
    file.write_bytes(b"")


def lose(file: Path, _: sqlite3.Connection) -> None:
    file.unlink()


def age(_: Path, connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE snapshots SET kind = '0 older'")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (flip, "is damaged"),
        (cut, "is damaged"),
        (empty, "is damaged"),
        (lose, "cannot be read"),
        (age, "is of the kind '0 older'"),
    ],
)
async def test_an_unusable_snapshot_is_logged_and_the_index_rebuilt(path, caplog, spoil, said):
    await fill(path)
    (file,) = files(path)
    connection = sqlite3.connect(path, isolation_level=None)
    spoil(file, connection)
    connection.close()
    with caplog.at_level(logging.WARNING):
        async with opened(path) as store:
            assert await keys_found(store, PROBES[:1]) == [None]
            assert (await nearest_once_ready(store, PROBES[0])).key == key(0)
    assert said in caplog.text
    # The next snapshot takes the place of the unusable one.
    assert len(files(path)) == 1
    async with opened(path) as store:
        assert await keys_found(store, PROBES[:500]) == [key(n) for n in range(500)]


async def test_a_snapshot_of_before_probes_were_turned_is_of_use(path):
    await fill(path, 600)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("UPDATE snapshots SET kind = '1' || substr(kind, 2)")
    connection.close()
    async with opened(path) as store:
        assert await keys_found(store, PROBES[:600]) == [key(n) for n in range(600)]


async def test_a_database_from_a_backup_does_not_take_a_later_snapshot(path, tmp_path):
    await fill(path, 200)
    shutil.copy(path, tmp_path / "backup")
    async with opened(path) as store:
        await store.put_many(entries(range(200, 500), probes=PROBES[200:]))
    # What is written to the restored one gets the ids that the later entries had.
    path.unlink()
    shutil.copy(tmp_path / "backup", path)
    async with opened(path, is_indexing=False) as store:
        await store.put_many(entries(range(500, 600), probes=PROBES[500:]))
    async with opened(path) as store:
        await nearest_once_ready(store, PROBES[0])
        expected = [key(n) for n in (*range(200), *range(500, 600))]
        assert await keys_found(store, PROBES[[*range(200), *range(500, 600)]]) == expected


async def test_a_new_database_in_the_place_of_an_old_one_has_no_snapshot(path):
    await fill(path)
    path.unlink()
    async with opened(path) as store:
        assert await keys_found(store, PROBES[:1]) == [None]
        await store.put_many(entries(range(3), probes=PROBES[1:]))
        assert await keys_found(store, PROBES[1:2]) == [key(0)]


async def test_two_workers_on_one_file_leave_one_snapshot_that_both_can_use(path):
    async with opened(path) as one, opened(path) as other:
        await one.put_many(entries(range(300), probes=PROBES))
        await other.put_many(entries(range(300, 600), probes=PROBES[300:]))
        await nearest_once_ready(one, PROBES[0])
        await nearest_once_ready(other, PROBES[0])
    assert len(files(path)) == 1
    async with opened(path) as one, opened(path) as other:
        for store in (one, other):
            assert None not in await keys_found(store, PROBES[:600])


async def test_a_worker_saves_nothing_while_another_one_does(path):
    async with opened(path) as store:
        await store.put_many(entries(range(500), probes=PROBES))
        with snapshots.making(path) as is_alone:
            assert is_alone
            await store.close()
    assert files(path) == []


async def test_only_its_owner_can_read_a_snapshot(path):
    await fill(path)
    (file,) = files(path)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


async def test_a_purge_of_a_namespace_takes_its_snapshots_with_it(path):
    await fill(path)
    other = PARTITION._replace(namespace_id="f" * 32)
    async with opened(path, is_indexing=False) as store:
        assert await store.purge(Scope(other.namespace_id)) == 0
        assert len(files(path)) == 1
        assert await store.purge(Scope(PARTITION.namespace_id)) == 500
        assert files(path) == []
    async with opened(path) as store:
        assert await keys_found(store, PROBES[:1]) == [None]
