"""What is special to the embedded store: its file, its bounds, its graphs, its threads."""

import asyncio
import hashlib
import itertools
import json
import logging
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import textwrap
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from cacheproxy.errors import StoreError
from cacheproxy.stores.embedded import rows
from cacheproxy.stores.embedded.store import EmbeddedStore
from cacheproxy.stores.protocol import Entry, Partition
from cacheproxy.stores.purges import Scope

REPOSITORY = Path(__file__).parents[3]
PARTITION = Partition("0123456789abcdef" * 2, "model")
NOW = 1_700_000_000.0
LATER = NOW + 3600.0


def key(name) -> bytes:
    return hashlib.sha256(str(name).encode()).digest()


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def random_probes(count: int, dimensions: int = 32, seed: int = 0) -> np.ndarray:
    return unit(np.random.default_rng(seed).standard_normal((count, dimensions)))


def entries(names, record=b"record", *, expires_at=LATER, partition=PARTITION, probes=None):
    rows = itertools.repeat(None) if probes is None else probes
    return [
        Entry(key(name), partition, record, expires_at, (), probe)
        for name, probe in zip(names, rows, strict=False)
    ]


@asynccontextmanager
async def opened(path: Path | None, *, max_bytes: int = 2**30, now=lambda: NOW):
    store = EmbeddedStore(path, max_bytes=max_bytes, now=now)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def nearest_once_ready(store, probe: np.ndarray, partition=PARTITION):
    """Return the neighbour; a graph that is being rebuilt has 30 s to be done."""
    async with asyncio.timeout(30):
        while True:
            (found,) = await store.nearest(partition, probe[None])
            if found is not None:
                return found


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "made" / "by" / "open" / "cache.sqlite"


def set_aside(path: Path) -> list[Path]:
    aside = path.parent.glob(f"{path.name}.set-aside-*")
    return [file for file in aside if not file.name.endswith(("-wal", "-shm"))]


# The file


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
        (as_other_version, "has format 99"),
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


async def test_a_removed_database_file_is_recreated_by_the_next_sweep(path):
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


WRITER = textwrap.dedent(
    """
    import asyncio, hashlib, sys
    from pathlib import Path
    import numpy as np
    from cacheproxy.stores.embedded.store import EmbeddedStore
    from cacheproxy.stores.protocol import Entry, Partition

    async def main(path, first):
        store = EmbeddedStore(Path(path), max_bytes=2**30)
        await store.open()
        rng = np.random.default_rng(first)
        for start in range(first, first + 10**6, 64):
            rows = rng.standard_normal((64, 32)).astype(np.float32)
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
            await store.put_many([
                Entry(
                    hashlib.sha256(str(start + n).encode()).digest(),
                    Partition("0123456789abcdef" * 2, "model"),
                    hashlib.sha512(str(start + n).encode()).digest() * 25,
                    4e9,
                    (f"tag {n}",),
                    row,
                )
                for n, row in enumerate(rows)
            ])
            print(start + 64, flush=True)

    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
    """
)


def start_writer(path: Path, first: int) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), str(first)],
        stdout=subprocess.PIPE,
        cwd=REPOSITORY,
        text=True,
    )


def wait_for_batches(writer: subprocess.Popen, batches: int) -> int:
    """Return the number after the last entry that the writer said was written."""
    return [int(writer.stdout.readline()) for _ in range(batches)][-1]


def kill(writer: subprocess.Popen, first: int) -> int:
    """Kill -9; return the number after the last entry that was acknowledged."""
    writer.send_signal(signal.SIGKILL)
    said = [line for line in writer.stdout.read().splitlines(keepends=True) if line[-1:] == "\n"]
    writer.wait()
    return max([first, *map(int, said)])


async def assert_whole(path: Path, acknowledged: range) -> None:
    """Every acknowledged entry is there, every other is whole or absent, the file is sound."""
    beyond = range(acknowledged.stop, acknowledged.stop + 128)
    async with opened(path) as store:
        for numbers, may_miss in ((acknowledged, False), (beyond, True)):
            found = await store.get_many([key(n) for n in numbers])
            for n, record in zip(numbers, found, strict=True):
                if record is not None or not may_miss:
                    assert record == hashlib.sha512(str(n).encode()).digest() * 25
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    (probeless,) = connection.execute(
        "SELECT count(*) FROM entries WHERE probe IS NULL OR length(probe) != 128"
    ).fetchone()
    (untagged,) = connection.execute(
        "SELECT count(*) FROM entries WHERE key NOT IN (SELECT key FROM tags)"
    ).fetchone()
    (miscounted,) = connection.execute(
        "SELECT entries - (SELECT count(*) FROM entries) FROM totals"
    ).fetchone()
    connection.close()
    assert (probeless, untagged, miscounted) == (0, 0, 0)
    assert set_aside(path) == []


async def test_kill_9_while_writing_leaves_entries_whole_or_absent_and_the_file_sound(path):
    for attempt, batches in enumerate((1, 4, 9)):
        first = attempt * 10**6
        writer = start_writer(path, first)
        acknowledged = wait_for_batches(writer, batches)
        acknowledged = max(acknowledged, kill(writer, first))
        await assert_whole(path, range(first, acknowledged))


async def test_two_processes_write_one_file_and_each_sees_what_both_wrote(path):
    writers = [start_writer(path, first) for first in (0, 10**6)]
    async with opened(path) as store:
        ends = [wait_for_batches(writer, 10) for writer in writers]
        numbers = [*range(ends[0]), *range(10**6, ends[1])]
        assert None not in await store.get_many([key(n) for n in numbers])
    ends = [
        max(end, kill(writer, first))
        for writer, end, first in zip(writers, ends, (0, 10**6), strict=True)
    ]
    await assert_whole(path, range(ends[0]))
    await assert_whole(path, range(10**6, ends[1]))


async def test_a_write_beside_a_busy_process_is_found_by_probe_in_the_end(path):
    (probe,) = random_probes(1)
    writer = start_writer(path, 0)
    async with opened(path) as store:
        wait_for_batches(writer, 20)
        # By the other process's clock, which is today's.
        await store.put_many(entries(["own"], expires_at=4e9, probes=[probe]))
        wait_for_batches(writer, 1)
        kill(writer, 0)
        async with asyncio.timeout(30):
            while (await nearest_once_ready(store, probe)).key != key("own"):
                pass


async def test_lookups_by_probe_come_to_see_what_another_process_wrote_and_removed(path):
    probes = random_probes(3)
    async with opened(path) as ours, opened(path) as theirs:
        await ours.put_many(entries(["ours"], probes=probes[:1]))
        assert (await ours.nearest(PARTITION, probes[1:2]))[0].key == key("ours")
        await theirs.put_many(entries(["theirs"], probes=probes[1:2]))
        async with asyncio.timeout(10):
            while (await ours.nearest(PARTITION, probes[1:2]))[0].key != key("theirs"):
                pass
        await theirs.put_many(entries(["theirs"], probes=probes[2:]))
        found = (await ours.nearest(PARTITION, probes[1:2]))[0]
        assert found.score < 0.999


async def test_a_graph_that_lags_behind_leads_into_no_other_partition(path):
    (probe,) = random_probes(1)
    other = Partition("f" * 32, "model")
    async with opened(path) as ours, opened(path) as theirs:
        await ours.put_many(entries(["a"], probes=[probe]))
        assert (await ours.nearest(PARTITION, probe[None]))[0].key == key("a")
        await theirs.put_many(entries(["a"], b"moved", partition=other, probes=[probe]))
        assert await ours.nearest(PARTITION, probe[None]) == [None]


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


# Bounds


@pytest.mark.parametrize("where", ["file", "memory"])
async def test_beyond_max_bytes_the_oldest_entries_go_first(path, where):
    async with opened(path if where == "file" else None, max_bytes=2 * 2**20) as store:
        for start in range(0, 4000, 100):
            await store.put_many(entries(range(start, start + 100), b"x" * 1000))
            assert store.stats().live_bytes <= 2 * 2**20
        found = await store.get_many([key(n) for n in range(4000)])
        kept = [n for n, record in enumerate(found) if record is not None]
        assert 500 < len(kept) < 2000
        assert kept == list(range(4000 - len(kept), 4000))
        assert store.stats().evicted == 4000 - len(kept)
        assert store.stats().entries == len(kept)


async def test_a_store_reopened_with_a_much_smaller_bound_evicts_in_pieces_between_other_calls(
    path,
):
    async with opened(path) as store:
        for start in range(0, 8000, 2000):
            await store.put_many(entries(range(start, start + 2000), b"x" * 2000))
    async with opened(path, max_bytes=2**20) as store:
        await store.put_many(entries(["written meanwhile"]))
        assert store.stats().evicted < 4000
        assert await store.purge(Scope(PARTITION.namespace_id, key=key("written meanwhile"))) == 1
        assert store.stats().evicted < 6000
        await store.sweep()
        assert store.stats().live_bytes <= 2**20
        assert await store.get_many([key(0), key(7999)]) == [None, b"x" * 2000]


async def test_an_entry_written_again_is_young_again(path):
    async with opened(path, max_bytes=2**20) as store:
        await store.put_many(entries(["kept", "lost"]))
        for start in range(0, 2000, 100):
            await store.put_many(entries(range(start, start + 100), b"x" * 1000))
            await store.put_many(entries(["kept"]))
        assert await store.get_many([key("kept"), key("lost")]) == [b"record", None]


async def test_evicted_entries_are_found_by_probe_no_more(path):
    probes = random_probes(2000)
    async with opened(path, max_bytes=2**20) as store:
        for start in range(0, 2000, 100):
            names = range(start, start + 100)
            await store.put_many(entries(names, b"x" * 1000, probes=probes[start:]))
        records = await store.get_many([key(n) for n in range(2000)])
        live = {key(n) for n, record in enumerate(records) if record is not None}
        assert 0 < len(live) < 1500
        for neighbour in await store.nearest(PARTITION, probes):
            assert neighbour.key in live


async def test_the_file_shrinks_after_most_of_it_expired(path):
    clock = [NOW]
    async with opened(path, now=lambda: clock[0]) as store:
        for start in range(0, 16_000, 2000):
            await store.put_many(entries(range(start, start + 2000), b"x" * 2000))
        clock[0] = LATER
        await store.sweep()
        assert store.stats().entries == 0
    assert path.stat().st_size < 12 * 2**20


async def test_a_sweep_removes_expired_entries_and_leaves_the_others(path):
    clock = [NOW]
    probes = random_probes(700)
    async with opened(path, now=lambda: clock[0]) as store:
        await store.put_many(entries(range(600), expires_at=NOW + 10, probes=probes))
        await store.put_many(entries(range(600, 700), expires_at=NOW + 20, probes=probes[600:]))
        clock[0] = NOW + 10
        await store.sweep()
        assert store.stats().entries == 100
        assert store.stats().expired == 600
        assert (await store.get_many([key(599), key(600)])) == [None, b"record"]
        found = await store.nearest(PARTITION, probes)
        assert {neighbour.key for neighbour in found} == {key(n) for n in range(600, 700)}


async def test_more_partitions_than_stay_loaded_all_answer(path):
    probes = random_probes(100)
    partitions = [Partition(f"{n:032x}", "model") for n in range(100)]
    async with opened(path) as store:
        for partition, probe in zip(partitions, probes, strict=True):
            await store.put_many(entries([partition], partition=partition, probes=[probe]))
        for partition in partitions:
            found = await nearest_once_ready(store, probes[0], partition)
            assert found.key == key(partition)


# Graphs


async def test_recall_at_1_is_at_least_99_percent_of_20_000_clustered_probes():
    rng = np.random.default_rng(0)
    centres = unit(rng.standard_normal((400, 256)))
    noise = rng.standard_normal((20_000, 256)) / 16
    stored = unit(centres[rng.integers(0, 400, 20_000)] + 0.6 * noise)
    queries = unit(stored[rng.integers(0, 20_000, 1000)] + 0.3 * unit(noise[:1000]))
    async with opened(None) as store:
        for start in range(0, 20_000, 256):
            part = stored[start : start + 256]
            names = range(start, start + len(part))
            await store.put_many(entries(names, probes=part))
        found = await store.nearest(PARTITION, queries)
    truth = (queries @ stored.T).argmax(axis=1)
    right = sum(neighbour.key == key(place) for neighbour, place in zip(found, truth, strict=True))
    assert right >= 990


async def test_many_equal_probes_hide_no_others():
    probes = random_probes(600, 256)
    crowd = np.repeat(probes[:1], 3000, axis=0)
    async with opened(None) as store:
        await store.put_many(entries(range(300), probes=probes))
        await store.put_many(entries(range(1000, 4000), probes=crowd))
        await store.put_many(entries(range(300, 600), probes=probes[300:]))
        found = await store.nearest(PARTITION, probes[1:])
        assert [neighbour.key for neighbour in found] == [key(n) for n in range(1, 600)]


async def test_the_last_of_a_dense_crowd_is_found_when_the_others_have_gone():
    clock = [NOW]
    noise = np.random.default_rng(1).standard_normal((500, 256))
    crowd = unit(random_probes(1, 256) + 1e-3 * unit(noise))
    async with opened(None, now=lambda: clock[0]) as store:
        await store.put_many(entries(range(490), expires_at=NOW + 1, probes=crowd))
        await store.put_many(entries(range(490, 500), probes=crowd[490:]))
        clock[0] = NOW + 2
        await store.sweep()
        found = await store.nearest(PARTITION, crowd[490:])
        assert [neighbour.key for neighbour in found] == [key(n) for n in range(490, 500)]


async def test_a_graph_that_lost_most_of_its_nodes_is_rebuilt_and_finds_the_rest():
    clock = [NOW]
    probes = random_probes(5000)
    async with opened(None, now=lambda: clock[0]) as store:
        await store.put_many(entries(range(4900), expires_at=NOW + 1, probes=probes))
        await store.put_many(entries(range(4900, 5000), probes=probes[4900:]))
        clock[0] = NOW + 2
        await store.sweep()
        await nearest_once_ready(store, probes[4900])
        found = await store.nearest(PARTITION, probes[4900:])
        assert [neighbour.key for neighbour in found] == [key(n) for n in range(4900, 5000)]


# Entries that are not what `Entry` promises


@pytest.mark.parametrize(
    "probe",
    [
        np.zeros(8, np.float32),
        np.full(8, np.nan, np.float32),
        np.full(8, np.inf, np.float32),
        np.ones(8, np.float32),
        np.eye(2, dtype=np.float32),
        np.empty(0, np.float32),
    ],
    ids=["zero", "nan", "infinite", "too-long", "matrix", "empty"],
)
async def test_a_probe_that_is_no_unit_vector_is_refused_and_nothing_written(probe):
    async with opened(None) as store:
        with pytest.raises(StoreError):
            await store.put_many(entries(["good", "bad"], probes=[random_probes(1, 8)[0], probe]))
        assert await store.get_many([key("good"), key("bad")]) == [None, None]


async def test_keys_of_another_length_and_expiries_that_are_no_time_are_refused():
    async with opened(None) as store:
        with pytest.raises(StoreError):
            await store.get_many([key("a"), b"short"])
        for entry in (
            Entry(b"short", PARTITION, b"record", LATER),
            Entry(key("a"), PARTITION, b"record", float("nan")),
        ):
            with pytest.raises(StoreError):
                await store.put_many([*entries(["good"]), entry])
        assert await store.get_many([key("good")]) == [None]


async def test_a_lone_surrogate_in_a_tag_harms_nothing():
    async with opened(None) as store:
        await store.put_many([Entry(key("a"), PARTITION, b"record", LATER, ("\ud800", "\udfff"))])
        assert await store.get_many([key("a")]) == [b"record"]


async def test_tags_leave_with_their_entry(path):
    async with opened(path) as store:
        await store.put_many([Entry(key("a"), PARTITION, b"old", LATER, ("one", "two", "one"))])
        await store.put_many([Entry(key("a"), PARTITION, b"new", LATER, ("two", "three"))])
        await store.put_many([Entry(key("b"), PARTITION, b"old", NOW, ("gone",))])
        await store.sweep()
    connection = sqlite3.connect(path)
    assert set(connection.execute("SELECT tag, key FROM tags")) == {
        (rows.tag_bytes(PARTITION.namespace_id, tag), key("a")) for tag in ("two", "three")
    }
    connection.close()


# Threads


async def test_a_saturated_event_loop_still_gets_its_answers(path):
    payload = {"numbers": list(range(2000))}

    async def saturate() -> None:
        while True:
            json.dumps(payload)
            await asyncio.sleep(0)

    async with opened(path) as store:
        await store.put_many(entries(range(100)))
        busy = asyncio.create_task(saturate())
        # Without `GilYield` one lookup takes seconds; this is 50 times what they take with it.
        async with asyncio.timeout(10):
            for n in range(100):
                assert await store.get_many([key(n)]) == [b"record"]
        busy.cancel()


async def test_a_write_that_waits_for_the_lock_delays_no_lookup(path):
    (probe,) = random_probes(1)
    async with opened(path) as store:
        await store.put_many(entries(["a"], probes=[probe]))
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        write = asyncio.create_task(store.put_many(entries(["b"])))
        await asyncio.sleep(0)  # lets the write begin
        assert await store.get_many([key("a"), key("b")]) == [b"record", None]
        assert (await store.nearest(PARTITION, probe[None]))[0].key == key("a")
        assert not write.done()
        other.execute("ROLLBACK")
        other.close()
        await write
        assert await store.get_many([key("b")]) == [b"record"]
