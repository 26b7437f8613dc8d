"""The store in this process: entries in SQLite (a file, or memory), probes in usearch graphs.

The default store: it needs no server, and is still warm after a restart or a kill -9. This module
decides which thread does what, and in which slices; `indexing` does so for the graphs, `removal`
for expiry, eviction and purges. `rows` has the SQL, `database` the file.

A file is served by three threads with one connection each: a reader, a writer and an indexer. So a
batch that is being written delays no read (WAL readers never wait), and indexing, the slowest work,
delays neither. A database in memory exists within one connection only: one thread does all the
work, and slices keep others from waiting long.
"""

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cacheproxy.concurrency.background import stop_tasks
from cacheproxy.concurrency.gathered import Gathered
from cacheproxy.errors import StoreError
from cacheproxy.stores.calls import Calls
from cacheproxy.stores.embedded import notices, rows, states
from cacheproxy.stores.embedded.database import Connection, Database, transaction
from cacheproxy.stores.embedded.database_thread import DatabaseThread
from cacheproxy.stores.embedded.index.indexing import Indexing
from cacheproxy.stores.embedded.listener import Listener
from cacheproxy.stores.embedded.removal import EmbeddedStats, Removal
from cacheproxy.stores.embedded.rows import Removed
from cacheproxy.stores.embedded.scan import Scan, read_entry
from cacheproxy.stores.embedded.shares import StoreShares, StoreTermsOf, equal
from cacheproxy.stores.embedded.uses import Uses
from cacheproxy.stores.protocol import (
    Census,
    Entry,
    Neighbour,
    Partition,
    Progress,
)
from cacheproxy.stores.purges import PurgeNote, Purges, Scope
from cacheproxy.stores.shielded import Shielded

_log = logging.getLogger(__name__)

_SWEEP_INTERVAL_S = 5.0

_EVICTED_PER_WRITE = 4 * rows.WRITE_ROWS
"""The most rows that one slice of a write evicts; the sweep evicts the rest. So a store that was
reopened with a much smaller bound delays no write by more than this, and a steady store stays
within its bound while new entries are up to four times as large as the old ones."""

_GET_KEYS = 128
"""Keys looked up in one job, which takes a millisecond or two."""


@dataclass(frozen=True, slots=True)
class _Written:
    entries: list[Entry]
    removed: list[Removed]


class EmbeddedStore:
    """A `Store` (see there for the methods) over SQLite and usearch; used from one event loop.

    Any number of processes may open the same file. An entry that one of them writes is found by the
    others by key at once, and by probe once their own graphs have caught up in the background. A
    purge takes effect in all processes at once; they hear of it when they next poll for notices.
    """

    lookups_at_once = 1  # one thread does them all

    def __init__(
        self,
        path: Path | None,
        *,
        max_bytes: int,
        terms: StoreTermsOf = equal,
        is_indexing: bool = True,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Prepare a store in the file at `path`, or in memory if that is None.

        Args:
            path: created, with its folders, by `open`.
            max_bytes: beyond this, entries are evicted: of the tenant that has the most, the oldest
                that were not used (`uses`).
            terms: what of it a tenant may have.
            is_indexing: whether entries go into this process's graphs when they are written; a
                process that only writes has no use for that.
            now: Unix time, seconds.
        """
        self.purges = Purges()
        self._now = now
        self._is_indexing = is_indexing
        self._id = os.urandom(8)
        self._database = Database(path)
        self._writer = DatabaseThread(self._database, "store-writer")
        self._reader = DatabaseThread(self._database, "store-reader") if path else self._writer
        indexer = DatabaseThread(self._database, "store-indexer") if path else self._writer
        self._get = Gathered[bytes, bytes | None](self._reader.run, self._read, most=_GET_KEYS)
        self._threads = list(dict.fromkeys((self._reader, indexer, self._writer)))
        self._indexing = Indexing(indexer, now, path if is_indexing else None)
        self._uses = Uses(max_bytes)
        self._removal = Removal(
            self._database,
            self._writer,
            self._indexing,
            shares=StoreShares(max_bytes, terms),
            uses=self._uses,
            now=now,
        )
        self._calls = Calls()
        self._listener = Listener(path, self._reader, self.purges, self._id) if path else None
        self._sweeping: asyncio.Task[None] | None = None
        self._purging = Shielded()

    async def open(self) -> None:
        """Open or create the database; an unusable file in its place is set aside.

        Raises:
            StoreError: there can be no database at the path; `open` may be tried again.
        """
        self._calls.check_not_closed()
        try:
            await self._connect()
        except StoreError:
            # The first attempt found the file corrupt; the second sets it aside.
            await self._connect()
        await self._indexing.restore()
        if self._listener is not None:
            await self._listener.start()
        self._calls.open()
        self._sweeping = asyncio.create_task(self._sweep_for_ever())

    async def close(self) -> None:
        """Wait for the calls in progress, then release threads and file."""
        if not self._calls.close():
            return
        await stop_tasks(self._sweeping)
        await self._indexing.stop()
        if self._listener is not None:
            await self._listener.stop()
        # A purge that is cut short here is completed by another process, or after the next open.
        await self._purging.cut_short()
        await self._calls.ended()
        await self._indexing.save()
        for thread in self._threads:
            await thread.close()

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return each key's live record, or None, in the order of the keys."""
        found: list[bytes | None] = []
        with self._calls.one():
            for start in range(0, len(keys), _GET_KEYS):
                found += await self._get(keys[start : start + _GET_KEYS])
        self._uses.found(key for key, one in zip(keys, found, strict=True) if one is not None)
        return found

    async def nearest(
        self, partition: Partition, probes: NDArray[np.float32]
    ) -> list[Neighbour | None]:
        """Return, for each row of `probes` (float32 [n, d], unit rows), the nearest live entry.

        All are None while the partition's graph is being rebuilt after a restart or after it was
        unloaded. Entries whose probes have another length than d are ignored.
        """
        if probes.ndim != 2:
            raise StoreError("probes are not a matrix", "invalid")
        queries = np.ascontiguousarray(probes, np.float32)
        with self._calls.one():
            found = await self._indexing.nearest(partition, queries)
        self._uses.found(one.key for one in found if one is not None)
        return found

    async def candidates(
        self, partition: Partition, probe: NDArray[np.float32], count: int
    ) -> list[Neighbour]:
        """Return up to `count` live entries nearest to a probe (float32 [d], unit), best first.

        The list is empty while the partition's graph is being rebuilt, as for `nearest`.
        """
        query = np.ascontiguousarray(probe, np.float32)
        with self._calls.one():
            return await self._indexing.candidates(partition, query, count)

    async def put_many(self, entries: Sequence[Entry]) -> int:
        """Write the entries, each atomically; lookups that begin afterwards find them.

        Return how many keys were written; entries that a purge forbids are left out.
        """
        count = 0
        with self._calls.one():
            for start in range(0, len(entries), rows.WRITE_ROWS):
                part = entries[start : start + rows.WRITE_ROWS]
                written = await self._writer.run(self._write, part)
                await self._indexing.discard(written.removed)
                await self._removal.evict(_EVICTED_PER_WRITE)
                if self._is_indexing:
                    await self._indexing.index(written.entries)
                count += len(written.entries)
        return count

    async def purge(self, scope: Scope, progress: Progress | None = None) -> int:
        """Remove the entries in scope whose work began before now; return how many they were.

        Cancelling the caller does not stop a purge. One that is killed or fails midway stays in
        force, and a sweep of any process completes it about a minute later.
        """
        with self._calls.one():
            return await self._purging.run(self._purge(scope, progress))

    async def census(self) -> Census:
        """Count every entry, on the reader's thread."""
        with self._calls.one():
            usage = await self._reader.run(rows.measure)
            namespaces = await self._reader.run(rows.count_namespaces)
        return Census(usage.entries, usage.live_bytes, namespaces)

    async def entry(self, key: bytes) -> Entry | None:
        """Return the live entry of a key with all that is kept beside its record."""
        with self._calls.one():
            return await self._reader.run(read_entry, key, self._now())

    def scan(self, namespace_ids: Collection[str] | None = None) -> AsyncIterator[list[Entry]]:
        """Yield all live entries in parts, or those of some namespaces."""
        return Scan(namespace_ids).parts(self._reader, self._calls, self._now())

    async def purged_since(self, generation: int) -> list[PurgeNote]:
        """Return the purges with a higher generation, of the last hour at least."""
        with self._calls.one():
            return await self._reader.run(notices.purged_since, generation)

    async def read_state(self, name: str) -> bytes | None:
        """Return the live state of that name."""
        with self._calls.one():
            return await self._reader.run(states.read_state, name, self._now())

    async def swap_state(self, name: str, old: bytes | None, new: bytes, expires_at: float) -> bool:
        """Write a state if it still is `old`; return whether it was."""
        with self._calls.one():
            return await self._writer.run(
                states.swap_state, name, old, new, expires_at, self._now()
            )

    async def sweep(self) -> None:
        """Remove expired entries, evict what exceeds the bound, and shrink the file; in slices.

        The store does so by itself every 5 s.
        """
        with self._calls.one():
            await self._removal.sweep()
            await self._indexing.measure()
            self._indexing.check_if_grown()
            await self._indexing.renew_snapshots()

    def stats(self) -> EmbeddedStats:
        """Return figures for metrics, without touching the database."""
        return replace(self._removal.stats, index=self._indexing.stats)

    def _read(self, connection: Connection, keys: Sequence[bytes]) -> list[bytes | None]:
        return rows.get_many(connection, keys, self._now())

    async def _connect(self) -> None:
        await self._writer.run(self._removal.measure)
        for thread in self._threads:
            await thread.run(rows.measure)

    async def _purge(self, scope: Scope, progress: Progress | None) -> int:
        purge = await self._writer.run(notices.begin_purge, scope, self._now())
        self.purges.purged(scope, purge.generation)
        return await self._removal.purge(purge, progress)

    async def _sweep_for_ever(self) -> None:
        failing = False
        while True:
            try:
                await self.sweep()
                failing = False
            except StoreError as error:
                if not failing:
                    _log.warning("sweeping the store failed; it is tried every 5 s: %s", error)
                failing = True
            await asyncio.sleep(_SWEEP_INTERVAL_S)

    def _write(self, connection: Connection, entries: Sequence[Entry]) -> _Written:
        with transaction(connection):
            allowed = notices.allowed(connection, entries)
            replaced = rows.put_many(connection, allowed)
            # An answer is written again when its probe is known: no process has an older one.
            keys = [replacement.key for replacement in replaced if replacement.is_changed]
            notices.announce_replaced(connection, keys, self._id, self._now())
        self._removal.measure(connection)
        return _Written(allowed, [replacement.row for replacement in replaced])
