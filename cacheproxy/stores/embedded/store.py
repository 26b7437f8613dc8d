"""The store in this process: entries in SQLite (a file, or memory), probes in usearch graphs.

The default store: it needs no server, and its entries survive a restart or a kill -9. This module
decides which thread does which work, and in which slices; `rows` has the SQL, `vectors` the graphs,
`database` the file and its threads.

A file is served by three threads with a connection each, so that a batch being written delays no
read (WAL readers never wait), and indexing, the slowest work, delays neither. An in-memory database
exists within one connection only: one thread does all work, in slices so that calls interleave.
"""

import asyncio
import logging
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cacheproxy.errors import StoreError
from cacheproxy.stores.embedded import notices, rows, states
from cacheproxy.stores.embedded.database import Connection, Database, transaction
from cacheproxy.stores.embedded.listener import Listener
from cacheproxy.stores.embedded.notices import Purge
from cacheproxy.stores.embedded.rows import Removed
from cacheproxy.stores.embedded.vectors import CATCH_UP_ROWS, PartitionIndex, VectorIndexes
from cacheproxy.stores.embedded.worker import Worker
from cacheproxy.stores.protocol import (
    Census,
    Entry,
    IndexStats,
    Neighbour,
    Partition,
    Progress,
    StoreStats,
)
from cacheproxy.stores.purges import Purges, Scope
from cacheproxy.stores.shielded import Shielded

_log = logging.getLogger(__name__)

_SWEEP_INTERVAL_S = 5.0

_LOADED_PARTITIONS = 256
"""Graphs kept in memory, at least 56 kB each (measured). Unloading one costs misses until it is
rebuilt. Every context of chat requests has one; most of them are small."""

_LOAD_SLICES = 8
"""Slices of rows that a first lookup indexes itself, so that a small partition answers at once."""

_LAG_ROWS = 1024
"""How many rows of other writers a write indexes along with its own. If there are more, indexing is
left to the background, and the new entries are not found by probe at once."""

_EVICTED_PER_WRITE = 4 * rows.WRITE_ROWS
"""The most rows that one slice of a write evicts, so that a store whose bound was lowered evicts in
the background without delaying writes. Four rows per new one keep the store within its bound even
if new entries are up to four times as large as the old ones."""

_GET_KEYS = 128
"""Keys looked up in one slice: a millisecond or two, then other work gets a turn."""

_NEAREST_ROWS = 32
"""Probes looked up in one slice: about 5 ms, then other work gets a turn."""


@dataclass(frozen=True, slots=True)
class EmbeddedStats(StoreStats):
    """The store's contents as of its last write or sweep, and its removals since `open`.

    `live_bytes` are SQLite pages in use, which `max_bytes` bounds.

    Attributes:
        free_bytes: free pages of the file, kept for the next writes.
        evicted: entries removed to stay within `max_bytes`.
        expired: entries removed because they had expired.
    """

    free_bytes: int = 0
    evicted: int = 0
    expired: int = 0


@dataclass(frozen=True, slots=True)
class _Lookup:
    neighbours: list[Neighbour | None]
    behind: bool


@dataclass(frozen=True, slots=True)
class _Written:
    entries: list[Entry]
    removed: list[Removed]


class EmbeddedStore:
    """A `Store` (see there for the methods) over SQLite and usearch; used from one event loop.

    Any number of processes may open the same file. An entry that one of them writes is found by the
    others by key at once, and by probe once their own graphs have caught up in the background. An
    entry that one of them purges is no longer found by the others at once; their hot tiers learn of
    it at the next poll for announcements.
    """

    lookups_at_once = 1  # one thread does all work

    def __init__(
        self, path: Path | None, *, max_bytes: int, now: Callable[[], float] = time.time
    ) -> None:
        """Prepare a store in the file at `path`, or in memory if that is None.

        Args:
            path: created, with its folders, by `open`.
            max_bytes: beyond this, the oldest entries are evicted.
            now: Unix time, seconds.
        """
        self.purges = Purges()
        self._max_bytes = max_bytes
        self._now = now
        self._id = os.urandom(8)
        self._database = Database(path)
        self._writer = Worker(self._database, "store-writer")
        self._reader = Worker(self._database, "store-reader") if path else self._writer
        self._indexer = Worker(self._database, "store-indexer") if path else self._writer
        self._workers = list(dict.fromkeys((self._reader, self._indexer, self._writer)))
        self._indexes = VectorIndexes(_LOADED_PARTITIONS)  # touched on the indexer's thread only
        self._stats = EmbeddedStats()  # replaced on the writer's thread only
        self._index_stats = IndexStats()  # replaced on the indexer's thread only
        self._is_open = False
        self._is_closed = False
        self._calls = 0
        self._idle = asyncio.Event()
        self._listener = Listener(path, self._reader, self.purges, self._id) if path else None
        self._sweeping: asyncio.Task[None] | None = None
        self._purging = Shielded()
        self._rebuilds: dict[tuple[Partition, int], asyncio.Task[None]] = {}
        self._rebuild_turn = asyncio.Lock()

    async def open(self) -> None:
        """Open or create the database; an unusable file is set aside.

        Raises:
            StoreError: no database can be created at the path; `open` may be retried.
        """
        if self._is_closed:
            raise StoreError("the store is closed")
        try:
            await self._connect()
        except StoreError:
            # A file that the first attempt found corrupt is set aside by the second.
            await self._connect()
        if self._listener is not None:
            await self._listener.start()
        self._is_open = True
        self._sweeping = asyncio.create_task(self._sweep_for_ever())

    async def close(self) -> None:
        """Wait for the calls in progress, then release threads and file."""
        if self._is_closed:
            return
        self._is_open, self._is_closed = False, True
        tasks = [*self._rebuilds.values(), *([self._sweeping] if self._sweeping else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._listener is not None:
            await self._listener.stop()
        # A purge is continued by another process, or when the file is next opened.
        await self._purging.cut_short()
        while self._calls:
            self._idle.clear()
            await self._idle.wait()
        for worker in self._workers:
            await worker.close()

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return each key's live record, or None, in the order of the keys."""
        found: list[bytes | None] = []
        with self._call():
            for start in range(0, len(keys), _GET_KEYS):
                part = keys[start : start + _GET_KEYS]
                found += await self._reader.run(rows.get_many, part, self._now())
        return found

    async def nearest(
        self, partition: Partition, probes: NDArray[np.float32]
    ) -> list[Neighbour | None]:
        """Return, for each row of `probes` (float32 [n, d], unit rows), the nearest live entry.

        All are None while the partition's graph is being rebuilt after a restart or an unloading.
        Entries whose probes have a length other than d are ignored.
        """
        if probes.ndim != 2:
            raise StoreError("probes are not a matrix", "invalid")
        queries = np.ascontiguousarray(probes, np.float32)
        found: list[Neighbour | None] = []
        with self._call():
            for start in range(0, len(queries), _NEAREST_ROWS):
                part = queries[start : start + _NEAREST_ROWS]
                lookup = await self._indexer.run(self._nearest, partition, part)
                found += lookup.neighbours
                if lookup.behind:
                    self._rebuild_soon(partition, queries.shape[1])
        return found

    async def candidates(
        self, partition: Partition, probe: NDArray[np.float32], count: int
    ) -> list[Neighbour]:
        """Return up to `count` live entries nearest to a probe (float32 [d], unit), best first.

        There are none while the partition's graph is being rebuilt, as for `nearest`.
        """
        query = np.ascontiguousarray(probe, np.float32)
        with self._call():
            lookup = await self._indexer.run(self._candidates, partition, query, count)
            if lookup.behind:
                self._rebuild_soon(partition, len(query))
        return [neighbour for neighbour in lookup.neighbours if neighbour is not None]

    async def put_many(self, entries: Sequence[Entry]) -> int:
        """Write the entries, each atomically; lookups that begin afterwards see them.

        Return how many keys were written; entries that a purge excludes are not.
        """
        count = 0
        with self._call():
            for start in range(0, len(entries), rows.WRITE_ROWS):
                part = entries[start : start + rows.WRITE_ROWS]
                written = await self._writer.run(self._write, part)
                await self._indexer.run(self._indexes.discard, written.removed)
                await self._evict(_EVICTED_PER_WRITE)
                await self._index(written.entries)
                count += len(written.entries)
        return count

    async def purge(self, scope: Scope, progress: Progress | None = None) -> int:
        """Remove all entries of the scope made before now; return their number.

        Cancelling the caller does not stop it. A purge that fails or whose process is killed
        remains in force; a later sweep, of any process, finishes it.
        """
        with self._call():
            return await self._purging.run(self._purge(scope, progress))

    async def census(self) -> Census:
        """Count every entry, on the reader's thread."""
        with self._call():
            usage = await self._reader.run(rows.measure)
            namespaces = await self._reader.run(rows.count_namespaces)
        return Census(usage.entries, usage.live_bytes, namespaces)

    async def read_state(self, name: str) -> bytes | None:
        """Return the live state of that name."""
        with self._call():
            return await self._reader.run(states.read_state, name, self._now())

    async def swap_state(self, name: str, old: bytes | None, new: bytes, expires_at: float) -> bool:
        """Write a state if the current one is `old`; return whether it was."""
        with self._call():
            return await self._writer.run(
                states.swap_state, name, old, new, expires_at, self._now()
            )

    async def sweep(self) -> None:
        """Remove expired entries, evict down to the bound, release free pages; in slices.

        The store does so automatically every 5 s.
        """
        with self._call():
            await self._writer.run(lambda _: self._database.check_in_place())
            while removed := await self._writer.run(self._remove_expired):
                await self._indexer.run(self._indexes.discard, removed)
            await self._evict()
            for purge in await self._writer.run(notices.abandoned_purges, self._now()):
                await self._remove_purged(purge, None)
            await self._writer.run(notices.forget_old, self._now())
            while await self._writer.run(rows.give_back_pages):
                pass
            await self._writer.run(self._measure)
            await self._indexer.run(self._measure_indexes)

    def stats(self) -> EmbeddedStats:
        """Return figures for metrics, without touching the database."""
        return replace(self._stats, index=self._index_stats)

    @contextmanager
    def _call(self) -> Iterator[None]:
        """Count a call as in progress; `close` waits for it."""
        if not self._is_open:
            raise StoreError("the store is not open")
        self._calls += 1
        try:
            yield
        finally:
            self._calls -= 1
            if not self._calls:
                self._idle.set()

    async def _connect(self) -> None:
        await self._writer.run(self._measure)
        for worker in self._workers:
            await worker.run(rows.measure)

    async def _purge(self, scope: Scope, progress: Progress | None) -> int:
        purge = await self._writer.run(notices.begin_purge, scope, self._now())
        self.purges.purged(scope, purge.generation)
        return await self._remove_purged(purge, progress)

    async def _remove_purged(self, purge: Purge, progress: Progress | None) -> int:
        count = 0
        while removed := await self._writer.run(self._remove_some, purge):
            await self._indexer.run(self._indexes.discard, removed)
            count += len(removed)
            if progress is not None:
                progress(count)
        await self._writer.run(notices.finish_purge, purge)
        return count

    async def _evict(self, most: float = math.inf) -> None:
        """Evict down to the bound, at most about `most` rows, in slices between other jobs."""
        evicted = 0
        while evicted < most and (some := await self._writer.run(self._evict_some)):
            await self._indexer.run(self._indexes.discard, some)
            evicted += len(some)

    async def _index(self, entries: Sequence[Entry]) -> None:
        """Add the entries just written to the graphs, unless these lag far behind anyway."""
        written = Counter(
            (entry.partition, len(entry.probe)) for entry in entries if entry.probe is not None
        )
        for (partition, dimensions), count in written.items():
            for _ in range((count + _LAG_ROWS) // CATCH_UP_ROWS):
                if await self._indexer.run(self._catch_up, partition, dimensions):
                    break
            else:
                self._rebuild_soon(partition, dimensions)

    def _rebuild_soon(self, partition: Partition, dimensions: int) -> None:
        """Bring the graph up to date in the background, one partition at a time."""
        key = (partition, dimensions)
        if key not in self._rebuilds and len(self._rebuilds) < _LOADED_PARTITIONS:
            task = asyncio.create_task(self._rebuild(partition, dimensions))
            self._rebuilds[key] = task
            task.add_done_callback(lambda _: self._rebuilds.pop(key))

    async def _rebuild(self, partition: Partition, dimensions: int) -> None:
        try:
            async with self._rebuild_turn:
                while not await self._indexer.run(self._catch_up, partition, dimensions):
                    pass
        except StoreError as error:
            _log.warning("a graph could not be rebuilt; retrying at its next use: %s", error)

    async def _sweep_for_ever(self) -> None:
        failing = False
        while True:
            try:
                await self.sweep()
                failing = False
            except StoreError as error:
                if not failing:
                    _log.warning("the store could not be swept; retrying: %s", error)
                failing = True
            await asyncio.sleep(_SWEEP_INTERVAL_S)

    # The rest runs on the workers' threads.

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
        """Return the index of a partition, brought up to date if that is quick."""
        index = self._indexes.load(connection, partition, dimensions)
        for _ in range(_LOAD_SLICES):
            if index.ready:
                break
            index.catch_up(connection, self._now())
        return index

    def _catch_up(self, connection: Connection, partition: Partition, dimensions: int) -> bool:
        index = self._indexes.load(connection, partition, dimensions)
        return index.catch_up(connection, self._now())

    def _write(self, connection: Connection, entries: Sequence[Entry]) -> _Written:
        with transaction(connection):
            allowed = notices.allowed(connection, entries)
            replaced = rows.put_many(connection, allowed)
            keys = [replacement.key for replacement in replaced]
            notices.announce_replaced(connection, keys, self._id, self._now())
        self._measure(connection)
        return _Written(allowed, [replacement.row for replacement in replaced])

    def _remove_some(self, connection: Connection, purge: Purge) -> list[Removed]:
        removed = notices.remove_some(connection, purge, self._now())
        self._measure(connection)
        return removed

    def _evict_some(self, connection: Connection) -> list[Removed]:
        evicted = rows.evict(connection, self._max_bytes)
        self._measure(connection, evicted=len(evicted))
        return evicted

    def _remove_expired(self, connection: Connection) -> list[Removed]:
        removed = rows.remove_expired(connection, self._now())
        self._measure(connection, expired=len(removed))
        return removed

    def _measure(self, connection: Connection, *, evicted: int = 0, expired: int = 0) -> None:
        usage = rows.measure(connection)
        self._stats = EmbeddedStats(
            entries=usage.entries,
            live_bytes=usage.live_bytes,
            free_bytes=usage.free_bytes,
            evicted=self._stats.evicted + evicted,
            expired=self._stats.expired + expired,
        )

    def _measure_indexes(self, _: Connection) -> None:
        self._index_stats = IndexStats(
            documents=self._indexes.probes, failures=0, size_bytes=self._indexes.size_bytes
        )
