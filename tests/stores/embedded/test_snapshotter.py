"""The process that makes snapshots beside the server, at the size from which on it does."""

import asyncio
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

from embedded_entries import PARTITION, entries, key, opened
from unit_probes import random_probes

from cacheproxy.stores.embedded.index import snapshots
from cacheproxy.stores.embedded.rows import partition_id

REPOSITORY = Path(__file__).parents[3]
PROBES = random_probes(snapshots.SMALLEST + 100)
ENTRIES = entries(range(len(PROBES)), expires_at=4e9, probes=PROBES)


def named(path: Path) -> list[str]:
    connection = sqlite3.connect(path)
    found = connection.execute("SELECT file FROM snapshots").fetchall()
    connection.close()
    return [file for (file,) in found]


def in_folder(path: Path) -> list[str]:
    return [file.name for file in snapshots.folder_of(path).iterdir()]


def snapshotter(path: Path) -> subprocess.Popen:
    partition = partition_id(PARTITION, PROBES.shape[1]).hex()
    module = "cacheproxy.stores.embedded.index.snapshotter"
    return subprocess.Popen(
        [sys.executable, "-m", module, str(path), partition, str(PROBES.shape[1])], cwd=REPOSITORY
    )


async def found_at_once(path: Path) -> bool:
    async with opened(path) as store:
        found = await store.nearest(PARTITION, PROBES[:100])
    return all(one is not None and one.key == key(n) for n, one in enumerate(found))


async def test_a_store_has_snapshots_made_while_it_is_used(path):
    async with opened(path) as store:
        await store.put_many(ENTRIES)
        await store.sweep()
        async with asyncio.timeout(60):
            while not named(path):
                await asyncio.sleep(0.05)
        # The first store has saved nothing itself: so it would be after a kill -9.
        assert await found_at_once(path)


async def test_kill_9_at_any_moment_of_a_snapshot_leaves_the_one_before(path):
    async with opened(path, is_indexing=False) as store:
        await store.put_many(ENTRIES)
    assert snapshotter(path).wait(60) == 0
    connection = sqlite3.connect(path, isolation_level=None)
    for pause_s in (0.0, 0.3, 0.5, 0.7):
        connection.execute("UPDATE snapshots SET last_id = 0")  # so that another one is due
        making = snapshotter(path)
        await asyncio.sleep(pause_s)
        making.send_signal(signal.SIGKILL)
        making.wait()
        assert await found_at_once(path)
    connection.execute("UPDATE snapshots SET last_id = 0")
    connection.close()
    assert snapshotter(path).wait(60) == 0
    assert in_folder(path) == named(path)
    assert await found_at_once(path)
