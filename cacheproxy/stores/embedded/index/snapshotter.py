"""Makes snapshots of graphs in a process of its own, beside the one that uses them.

usearch holds the GIL while it saves a graph, some seconds for a million probes: in the server's
process its event loop would stand still. So another process loads the snapshot before, indexes the
rows of its log, and saves the result; nothing is shared but the database. It runs at the lowest
priority, and takes the memory of the graph a second time while it does. Of several workers on one
file, one at a time has such a process. A fork of the server would need neither, but its threads are
those of libraries that do not expect one.

    python -m cacheproxy.stores.embedded.index.snapshotter PATH PARTITION DIMENSIONS ...
"""

import asyncio
import logging
import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from cacheproxy.concurrency.background import stop_tasks
from cacheproxy.stores.embedded.database import Connection, Database
from cacheproxy.stores.embedded.index import snapshots
from cacheproxy.stores.embedded.index.vectors import PartitionIndex

_log = logging.getLogger(__name__)

_ROWS = 256
"""Rows read and indexed at a time."""


class Snapshotter:
    """Starts the process; used from one event loop."""

    def __init__(self, path: Path) -> None:
        """Make snapshots of the database at `path`."""
        self._path = path
        self._running: asyncio.Task[None] | None = None

    def start(self, indexes: Sequence[PartitionIndex]) -> None:
        """Have snapshots of these made, unless the process is still at work."""
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run(indexes))

    async def stop(self) -> None:
        """End the process; what it had not completed has no effect."""
        await stop_tasks(self._running)

    async def _run(self, indexes: Sequence[PartitionIndex]) -> None:
        names = [str(part) for one in indexes for part in (one.partition.hex(), one.dimensions)]
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", __name__, str(self._path), *names),
            stdin=asyncio.subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the server, which ends this one
        )
        try:
            status = await process.wait()
            if status:
                _log.warning("snapshots of vector indexes were not made (status %d)", status)
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def make_all(path: Path, indexes: Sequence[tuple[bytes, int]]) -> None:
    """Make snapshots of these partitions, given with the dimensions of their probes."""
    connection = Database(path).connect()
    try:
        with snapshots.making(path) as is_alone:
            for partition, dimensions in indexes if is_alone else ():
                _make(connection, snapshots.folder_of(path), PartitionIndex(partition, dimensions))
    finally:
        connection.close()


def _make(connection: Connection, folder: Path, index: PartitionIndex) -> None:
    index = snapshots.load_one(connection, folder, index.partition) or index
    while not index.check_some(connection):
        pass
    while not index.catch_up(connection, time.time(), _ROWS):
        pass
    if snapshots.is_due(connection, index):
        snapshots.save(connection, folder, index)


def _main() -> None:
    os.nice(19)
    path, *names = sys.argv[1:]
    partitions, dimensions = map(bytes.fromhex, names[::2]), map(int, names[1::2])
    make_all(Path(path), list(zip(partitions, dimensions, strict=True)))


if __name__ == "__main__":
    _main()
