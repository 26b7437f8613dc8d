"""Several processes on one file: each sees what the others wrote, and a kill -9 harms nobody."""

import asyncio
import hashlib
import signal
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

from embedded_entries import PARTITION, entries, key, nearest_once_ready, opened, set_aside
from unit_probes import random_probes

from cacheproxy.stores.protocol import Partition

REPOSITORY = Path(__file__).parents[3]
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
        "SELECT sum(entries) - (SELECT count(*) FROM entries) FROM totals"
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


async def test_graphs_lose_what_another_process_evicted(path):
    """Each process removes rows that all have indexed, and tells nobody which."""
    probes = random_probes(70_000)
    async with opened(path, max_bytes=2**20) as ours, opened(path, max_bytes=2**20) as other:
        await ours.put_many(entries(range(100), probes=probes))
        last = await fill(ours, other, probes, 100, 6_000)
        async with asyncio.timeout(60):
            # They are looked for once the index has grown by a quarter, and not among the newest.
            while not last > 6_000 or ours.stats().index.documents > 2_500:
                # No faster than they are looked for: 64 in 20 ms.
                await asyncio.sleep(0.1)
                last = await fill(ours, other, probes, last, last + 100)
                await ours.sweep()
                await other.sweep()
        assert other.stats().evicted > 3_000
        assert await is_found(ours, probes[last - 1])


async def fill(ours, other, probes, first: int, end: int) -> int:
    """Have another process write entries, and ours index them; return `end`."""
    for start in range(first, end, 100):
        numbers = range(start, start + 100)
        await other.put_many(entries(numbers, b"x" * 500, probes=probes[start:]))
        while not await is_found(ours, probes[start + 99]):
            await asyncio.sleep(0.001)
    return end


async def is_found(store, probe) -> bool:
    (found,) = await store.nearest(PARTITION, probe[None])
    return found is not None and found.score > 0.999
