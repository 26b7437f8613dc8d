"""The embedded store's vector indexes at work: which of its jobs run when, and in which slices.

All jobs run on one thread, the indexer. Each is short, so that a lookup waits for none of them
long: a write indexes its own rows, and a graph that lags far behind is rebuilt in the background.
`vectors` has the graphs themselves.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cacheproxy.concurrency.background import stop_tasks
from cacheproxy.errors import StoreError
from cacheproxy.fairness.owner import current_owner
from cacheproxy.fairness.pool import FairPool
from cacheproxy.stores.embedded.database import Connection
from cacheproxy.stores.embedded.database_thread import DatabaseThread
from cacheproxy.stores.embedded.index import snapshots
from cacheproxy.stores.embedded.index.snapshotter import Snapshotter
from cacheproxy.stores.embedded.index.vectors import CATCH_UP_ROWS, PartitionIndex, VectorIndexes
from cacheproxy.stores.embedded.rows import Removed
from cacheproxy.stores.protocol import Entry, IndexStats, Neighbour, Partition

_log = logging.getLogger(__name__)

_LOADED_PARTITIONS = 256
"""Graphs kept in memory, at least 56 kB each (measured). An unloaded graph that is needed again
costs misses until it is rebuilt. Every context of chat requests has a graph, mostly a small one."""

_LOAD_SLICES = 8
"""Slices of rows that a first lookup indexes itself, so that a small partition answers at once."""

_LAG_ROWS = 1024
"""How many rows of other processes a write indexes along with its own. If there are more, all are
indexed in the background, and the new entries are found by probe only afterwards."""

_SAVED_ROWS = 1024
"""Rows that a snapshot lacks, from which on it is saved when the store is closed: to index them
again takes as long as to save a middling graph."""

_CHECK_PAUSE_S = 0.02
"""Pause between checks of nodes, for lookups: a million take some six minutes."""

_CHECK_GROWN, _CHECK_FROM = 1.25, 256
"""All nodes are checked for rows once there are so many times as many as after the last check, and
so many more. What this process removes leaves its graphs at once; but of what other processes
evict, or sweep away, it hears nothing, and of two workers each removes half."""

_NEAREST_ROWS = 8
"""Probes looked up in one job, which takes some 5 ms if a million are stored."""


@dataclass(frozen=True, slots=True)
class _Lookup:
    neighbours: list[Neighbour | None]
    behind: bool


class Indexing:
    """Looks up probes and keeps the graphs up to date; used from one event loop."""

    def __init__(self, thread: DatabaseThread, now: Callable[[], float], path: Path | None) -> None:
        """Prepare.

        Args:
            thread: owns the graphs.
            now: Unix time, seconds.
            path: of the database whose graphs have snapshots; None for none.
        """
        self._thread = thread
        self._now = now
        self._indexes = VectorIndexes(_LOADED_PARTITIONS)  # touched on the thread only
        self._stats = IndexStats()  # replaced on the thread only
        self._rebuilds: dict[tuple[Partition, int], asyncio.Task[None]] = {}
        self._rebuild_places = FairPool(_LOADED_PARTITIONS)
        self._rebuild_turns: dict[str, asyncio.Lock] = {}  # as many as there are tenants
        self._path = path
        self._snapshotter = None if path is None else Snapshotter(path)
        self._checking: asyncio.Task[None] | None = None
        self._checked_probes = 0.0

    @property
    def stats(self) -> IndexStats:
        """What the graphs held when they were last measured."""
        return self._stats

    async def restore(self) -> None:
        """Load the snapshots, which holds up the event loop; nothing may be served yet."""
        if self._path is None:
            return
        try:
            restored = await self._thread.run(self._restore, snapshots.folder_of(self._path))
        except StoreError as error:
            _log.warning("the snapshots of vector indexes are ignored: %s", error)
            return
        if restored:
            self._checking = asyncio.create_task(self._check())

    async def nearest(
        self, partition: Partition, probes: NDArray[np.float32]
    ) -> list[Neighbour | None]:
        """Return, for each row of `probes` (float32 [n, d], C order), the nearest live entry."""
        found: list[Neighbour | None] = []
        for start in range(0, len(probes), _NEAREST_ROWS):
            part = probes[start : start + _NEAREST_ROWS]
            lookup = await self._thread.run(self._nearest, partition, part)
            found += lookup.neighbours
            if lookup.behind:
                self._rebuild_soon(partition, probes.shape[1])
        return found

    async def candidates(
        self, partition: Partition, probe: NDArray[np.float32], count: int
    ) -> list[Neighbour]:
        """Return up to `count` live entries nearest to a probe (float32 [d]), best first."""
        lookup = await self._thread.run(self._candidates, partition, probe, count)
        if lookup.behind:
            self._rebuild_soon(partition, len(probe))
        return [neighbour for neighbour in lookup.neighbours if neighbour is not None]

    async def discard(self, removed: Sequence[Removed]) -> None:
        """Remove the probes of removed rows from the graphs."""
        await self._thread.run(self._indexes.discard, removed)

    async def index(self, entries: Sequence[Entry]) -> None:
        """Index the entries just written, unless the graphs lag far behind anyway."""
        written = Counter(
            (entry.partition, len(entry.probe)) for entry in entries if entry.probe is not None
        )
        for (partition, dimensions), count in written.items():
            for _ in range((count + _LAG_ROWS) // CATCH_UP_ROWS):
                if await self._thread.run(self._catch_up, partition, dimensions):
                    break
            else:
                self._rebuild_soon(partition, dimensions)

    async def measure(self) -> None:
        """Bring `stats` up to date."""
        await self._thread.run(self._measure)

    def check_if_grown(self) -> None:
        """Drop in the background, if it is time, the nodes whose rows other processes removed."""
        is_due = self._stats.documents > _CHECK_GROWN * self._checked_probes + _CHECK_FROM
        is_running = self._checking is not None and not self._checking.done()
        if self._path is not None and is_due and not is_running:
            self._checking = asyncio.create_task(self._check(begins_anew=True))

    async def renew_snapshots(self) -> None:
        """Have another process make the snapshots that are due."""
        if self._path is not None and self._snapshotter is not None:
            due = await self._thread.run(self._due, self._path)
            if due:
                self._snapshotter.start(due)

    async def stop(self) -> None:
        """Cancel what is being done in the background."""
        await stop_tasks(self._checking, *self._rebuilds.values())
        if self._snapshotter is not None:
            await self._snapshotter.stop()

    async def save(self) -> None:
        """Save what snapshots lack, which holds up the event loop; nothing may be served then."""
        if self._path is None:
            return
        try:
            await self._thread.run(self._save, self._path)
        except StoreError as error:
            _log.warning("a vector index was not saved; its rows are indexed again: %s", error)

    def _rebuild_soon(self, partition: Partition, dimensions: int) -> None:
        """Have the graph catch up in the background, one of a tenant's partitions at a time."""
        key, owner = (partition, dimensions), current_owner()
        if key in self._rebuilds or not self._rebuild_places.take(owner):
            return

        def done(_: asyncio.Task[None]) -> None:
            del self._rebuilds[key]
            self._rebuild_places.give_back(owner)

        task = asyncio.create_task(self._rebuild(partition, dimensions))
        self._rebuilds[key] = task
        task.add_done_callback(done)

    async def _rebuild(self, partition: Partition, dimensions: int) -> None:
        try:
            async with self._rebuild_turns.setdefault(current_owner(), asyncio.Lock()):
                while not await self._thread.run(self._catch_up, partition, dimensions):
                    pass
        except StoreError as error:
            _log.warning("a vector index could not be rebuilt; the next use tries again: %s", error)

    async def _check(self, *, begins_anew: bool = False) -> None:
        try:
            if begins_anew:
                await self._thread.run(self._begin_check)
            while not await self._thread.run(self._check_some):
                await asyncio.sleep(_CHECK_PAUSE_S)
            await self.measure()
            self._checked_probes = self._stats.documents
        except StoreError as error:
            _log.warning("a vector index keeps the probes of removed entries: %s", error)

    # What follows runs on the thread.

    def _restore(self, connection: Connection, folder: Path) -> int:
        """Load the snapshots; return how many there were."""
        found = snapshots.load_all(connection, folder, _LOADED_PARTITIONS)
        for owner, index in found:
            self._indexes.restore(connection, owner, index)
        return len(found)

    def _begin_check(self, _: Connection) -> None:
        self._indexes.begin_check()

    def _check_some(self, connection: Connection) -> bool:
        """Check some nodes of one index; return whether all are done."""
        return all(index.check_some(connection) for index in self._indexes.loaded)

    def _due(self, connection: Connection, path: Path) -> list[PartitionIndex]:
        due = [index for index in self._indexes.loaded if snapshots.is_due(connection, index)]
        with snapshots.making(path) if due else nullcontext(False) as is_alone:
            return due if is_alone else []

    def _save(self, connection: Connection, path: Path) -> None:
        for index in self._indexes.loaded:
            if not snapshots.is_due(connection, index, _SAVED_ROWS):
                continue
            with snapshots.making(path) as is_alone:
                if is_alone:
                    snapshots.save(connection, snapshots.folder_of(path), index)

    def _nearest(
        self, connection: Connection, partition: Partition, probes: NDArray[np.float32]
    ) -> _Lookup:
        index = self._load(connection, partition, probes.shape[1])
        if not index.ready:
            return _Lookup([None] * len(probes), behind=True)
        found = index.nearest(connection, probes, self._now())
        return _Lookup(found, index.is_behind(connection))

    def _candidates(
        self, connection: Connection, partition: Partition, probe: NDArray[np.float32], count: int
    ) -> _Lookup:
        index = self._load(connection, partition, len(probe))
        if not index.ready:
            return _Lookup([], behind=True)
        found = index.candidates(connection, probe, count, self._now())
        return _Lookup([*found], index.is_behind(connection))

    def _load(
        self, connection: Connection, partition: Partition, dimensions: int
    ) -> PartitionIndex:
        """Return the index of a partition, caught up if that is quickly done."""
        index = self._indexes.load(connection, partition, dimensions)
        for _ in range(_LOAD_SLICES):
            if index.ready:
                break
            index.catch_up(connection, self._now())
        return index

    def _catch_up(self, connection: Connection, partition: Partition, dimensions: int) -> bool:
        index = self._indexes.load(connection, partition, dimensions)
        return index.catch_up(connection, self._now())

    def _measure(self, _: Connection) -> None:
        self._stats = IndexStats(
            documents=self._indexes.probes, failures=0, size_bytes=self._indexes.size_bytes
        )
