"""What removes entries from the embedded store: expiry, eviction and purges, all in slices.

Each slice is one job of some 20 ms on the writer's thread, so that lookups and writes never wait
for a whole removal; the probes of the removed rows then leave the graphs on the indexer's thread.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from cacheproxy.stores.embedded import notices, rows
from cacheproxy.stores.embedded.database import Connection, Database
from cacheproxy.stores.embedded.database_thread import DatabaseThread
from cacheproxy.stores.embedded.index import snapshots
from cacheproxy.stores.embedded.index.indexing import Indexing
from cacheproxy.stores.embedded.notices import Purge
from cacheproxy.stores.embedded.rows import Removed
from cacheproxy.stores.embedded.shares import StoreShares
from cacheproxy.stores.embedded.uses import Uses
from cacheproxy.stores.protocol import Progress, StoreStats


@dataclass(frozen=True, slots=True)
class EmbeddedStats(StoreStats):
    """What the store holds, as of its last write or sweep, and what it has removed since `open`.

    `live_bytes` are SQLite pages in use, which a bound of the store limits.

    Attributes:
        free_bytes: pages of the file that wait for the next writes.
        evicted: entries removed to stay within the bounds, of all and of single tenants.
        expired: entries removed after their time.
    """

    free_bytes: int = 0
    evicted: int = 0
    expired: int = 0


class Removal:
    """Removes entries, and measures what is left.

    Attributes:
        stats: as of the last measurement; replaced on the writer's thread only.
    """

    def __init__(
        self,
        database: Database,
        writer: DatabaseThread,
        indexing: Indexing,
        *,
        shares: StoreShares,
        uses: Uses,
        now: Callable[[], float],
    ) -> None:
        """Prepare.

        Args:
            database: behind the threads.
            writer: removes rows.
            indexing: drops the probes of removed rows.
            shares: finds whose entries are evicted.
            uses: spares some of them.
            now: Unix time, seconds.
        """
        self.stats = EmbeddedStats()
        self._database = database
        self._writer = writer
        self._indexing = indexing
        self._shares = shares
        self._uses = uses
        self._now = now
        self._running: set[int] = set()

    async def sweep(self) -> None:
        """Remove what has expired, what exceeds the bound, and what abandoned purges left."""
        await self._writer.run(lambda _: self._database.check_in_place())
        while removed := await self._writer.run(self._remove_expired):
            await self._indexing.discard(removed)
        await self.evict()
        for purge in await self._writer.run(notices.abandoned_purges, self._now()):
            if not self._is_running(purge):
                await self.purge(purge)
        await self._writer.run(notices.forget_old, self._now())
        while await self._writer.run(rows.give_back_pages):
            pass
        await self._writer.run(self.measure)

    async def evict(self, most: float = math.inf) -> None:
        """Evict entries until the store is within its bound, or about `most` are evicted."""
        evicted = 0
        while evicted < most and (some := await self._writer.run(self._evict_some)):
            await self._indexing.discard(some)
            evicted += len(some)

    async def purge(self, purge: Purge, progress: Progress | None = None) -> int:
        """Remove all entries that a purge names; return how many."""
        count = 0
        self._running.add(purge.generation)
        try:
            while removed := await self._writer.run(self._purge_some, purge):
                await self._indexing.discard(removed)
                count += len(removed)
                if progress is not None:
                    progress(count)
            if purge.tag is None and purge.key is None and self._database.path is not None:
                folder = snapshots.folder_of(self._database.path)
                await self._writer.run(snapshots.forget_namespace, folder, purge.namespace)
            await self._writer.run(notices.finish_purge, purge)
        finally:
            self._running.discard(purge.generation)
        return count

    def _is_running(self, purge: Purge) -> bool:
        """Return whether this process carries a purge out, on however slow a disk."""
        return purge.generation in self._running

    # What follows runs on the writer's thread.

    def measure(self, connection: Connection, *, evicted: int = 0, expired: int = 0) -> None:
        """Measure what the store holds; count entries that were removed."""
        usage = rows.measure(connection)
        self.stats = EmbeddedStats(
            entries=usage.entries,
            live_bytes=usage.live_bytes,
            free_bytes=usage.free_bytes,
            evicted=self.stats.evicted + evicted,
            expired=self.stats.expired + expired,
        )

    def _remove_expired(self, connection: Connection) -> list[Removed]:
        removed = rows.remove_expired(connection, self._now())
        self.measure(connection, expired=len(removed))
        return removed

    def _evict_some(self, connection: Connection) -> list[Removed]:
        evicted = rows.evict(connection, self._shares.find_excess, self._uses)
        self.measure(connection, evicted=len(evicted))
        return evicted

    def _purge_some(self, connection: Connection, purge: Purge) -> list[Removed]:
        removed = notices.remove_some(connection, purge, self._now())
        self.measure(connection)
        return removed
