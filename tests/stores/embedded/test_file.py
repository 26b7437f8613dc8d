"""The embedded store's file: it outlives its process, is private, and is replaced if unusable."""

import asyncio
import json
import logging
import os
import sqlite3
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from embedded_entries import PARTITION, entries, key, nearest_once_ready, opened, set_aside
from unit_probes import random_probes

from cacheproxy.errors import StoreError
from cacheproxy.stores.embedded.store import EmbeddedStore

REPOSITORY = Path(__file__).parents[3]


async def test_a_restart_finds_every_entry_by_key_and_by_probe(path):
    probes = random_probes(500)
    async with opened(path) as store:
        await store.put_many(entries(range(500), probes=probes))
    async with opened(path) as store:
        assert None not in await store.get_many([key(n) for n in range(500)])
        assert (await nearest_once_ready(store, probes[7])).key == key(7)
        found = await store.nearest(PARTITION, probes)
        assert [neighbour.key for neighbour in found] == [key(n) for n in range(500)]


async def test_a_small_partition_answers_its_first_lookup_after_a_restart(path):
    probes = random_probes(20)
    async with opened(path) as store:
        await store.put_many(entries(range(20), probes=probes))
    async with opened(path) as store:
        assert (await store.nearest(PARTITION, probes[:1]))[0].key == key(0)


async def test_only_its_owner_can_read_the_file(path):
    before = os.umask(0)
    try:
        async with opened(path) as store:
            await store.put_many(entries(range(3)))
            files = list(path.parent.iterdir())
            assert {file.name for file in files} >= {path.name, f"{path.name}-wal"}
            assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    finally:
        os.umask(before)


async def test_a_file_open_to_others_is_closed_to_them(path):
    async with opened(path):
        pass
    path.chmod(0o644)
    async with opened(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def as_text(path: Path) -> None:
    path.write_text("this is no database\n" * 1000)


def as_torn_header(path: Path) -> None:
    path.write_bytes(b"SQLite format 3\0" + bytes(range(256)) * 40)


def as_foreign_database(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE entries (key, record)")
    connection.close()


def as_other_version(path: Path) -> None:
    async def make() -> None:
        async with opened(path):
            pass

    asyncio.new_event_loop().run_until_complete(make())
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (as_text, "is not a readable SQLite database"),
        (as_torn_header, "is not a readable SQLite database"),
        (as_foreign_database, "belongs to another program"),
        (as_other_version, "is of format 99"),
    ],
)
def test_a_file_that_cannot_be_used_is_set_aside_whole_and_the_store_starts_empty(
    path, caplog, spoil, reason
):
    path.parent.mkdir(parents=True)
    spoil(path)
    content = path.read_bytes()

    async def start_and_use() -> None:
        async with opened(path) as store:
            await store.put_many(entries(["a"]))
            assert await store.get_many([key("a")]) == [b"record"]

    asyncio.run(start_and_use())
    (aside,) = set_aside(path)
    assert aside.read_bytes() == content
    (line,) = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert reason in line
    assert aside.name in line
    asyncio.run(start_and_use())
    assert set_aside(path) == [aside]


async def test_an_empty_file_is_used_where_it_is(path):
    path.parent.mkdir(parents=True)
    path.touch()
    async with opened(path) as store:
        await store.put_many(entries(["a"]))
    assert set_aside(path) == []


async def test_pages_that_rot_at_run_time_cost_misses_until_the_file_is_replaced(path):
    async with opened(path) as store:
        await store.put_many(entries(range(3000), b"x" * 1000))
    content = path.read_bytes()
    first_page = int.from_bytes(content[16:18], "big")
    path.write_bytes(content[:first_page] + os.urandom(len(content) - first_page))
    async with opened(path) as store:
        async with asyncio.timeout(30):
            while True:
                try:
                    await store.put_many(entries(range(300)))
                    found = await store.get_many([key(n) for n in range(300)])
                except StoreError:
                    continue
                if found == [b"record"] * 300:
                    break
        assert len(set_aside(path)) == 1


async def test_a_file_removed_under_the_store_is_made_anew_by_the_next_sweep(path):
    probes = random_probes(2)
    async with opened(path) as store:
        await store.put_many(entries(["before"], probes=probes[:1]))
        for file in path.parent.glob("cache.sqlite*"):
            file.unlink()
        await store.sweep()
        await store.put_many(entries(["after"], probes=probes[1:]))
        assert await store.get_many([key("before"), key("after")]) == [None, b"record"]
        assert (await store.nearest(PARTITION, probes[:1]))[0].key == key("after")
    async with opened(path) as store:
        assert await store.get_many([key("after")]) == [b"record"]


async def test_a_path_that_can_hold_no_file_is_a_store_error_and_open_may_be_tried_again(path):
    path.mkdir(parents=True)
    store = EmbeddedStore(path, max_bytes=2**30)
    with pytest.raises(StoreError):
        await store.open()
    with pytest.raises(StoreError):
        await store.get_many([key("a")])
    path.rmdir()
    await store.open()
    assert await store.get_many([key("a")]) == [None]
    await store.close()


FULL_DISK = textwrap.dedent(
    """
    import asyncio, json, os, resource, sys
    from pathlib import Path
    from cacheproxy.errors import StoreError
    from cacheproxy.stores.embedded.store import EmbeddedStore
    from cacheproxy.stores.protocol import Entry, Partition

    def entries(first):
        return [
            Entry((first + n).to_bytes(32, "big"), Partition("ab", "m"), os.urandom(2000), 4e9)
            for n in range(256)
        ]

    async def main(path):
        store = EmbeddedStore(Path(path), max_bytes=2**30)
        await store.open()
        resource.setrlimit(resource.RLIMIT_FSIZE, (4 * 2**20, resource.RLIM_INFINITY))
        written = failed = 0
        for batch in range(40):
            try:
                await store.put_many(entries(batch * 1000))
                written += 1
            except StoreError:
                failed += 1
        readable = await store.get_many([n.to_bytes(32, "big") for n in range(256)])
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        await store.put_many(entries(10**6))
        again = await store.get_many([(10**6 + n).to_bytes(32, "big") for n in range(256)])
        await store.close()
        print(json.dumps([written, failed, readable.count(None), again.count(None)]))

    asyncio.run(main(sys.argv[1]))
    """
)


def test_a_full_disk_is_a_store_error_and_writes_work_again_when_there_is_room(path):
    run = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path)],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
        text=True,
    )
    written, failed, unreadable, lost_after = json.loads(run.stdout)
    assert written > 0
    assert failed > 0
    assert unreadable == 0
    assert lost_after == 0
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()
