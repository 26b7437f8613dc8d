"""Watches the search indexes of a Redis in the background: their size, and whether they work.

An index that returns nothing for existing entries is rebuilt from them.
"""

import asyncio
import logging
import math
import time
from dataclasses import replace

from cacheproxy.concurrency.background import stop_tasks
from cacheproxy.errors import StoreError
from cacheproxy.stores.protocol import IndexStats
from cacheproxy.stores.redis.index import IsBlind, ProbeIndex, ProbeIndexes

_log = logging.getLogger(__name__)

LOOK_EVERY_S = 15.0

_REBUILD_AGAIN_S = 600.0
"""The least time between two rebuilds of an index that still finds nothing."""


class IndexWatch:
    """Checks the indexes in use periodically.

    Attributes:
        stats: from the last check.
    """

    def __init__(self, indexes: ProbeIndexes, is_blind: IsBlind) -> None:
        self.stats = IndexStats()
        self._indexes = indexes
        self._is_blind = is_blind
        self._rebuilt_at: dict[ProbeIndex, float] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start checking in the background of the running event loop."""
        self._task = asyncio.create_task(self._look_for_ever())

    async def close(self) -> None:
        """Stop checking."""
        await stop_tasks(self._task)

    async def look(self) -> None:
        """Check every index once.

        Raises:
            StoreError: Redis did not answer.
        """
        ready = self._indexes.ready()
        seen = {index: await self._indexes.measure(index) for index in ready}
        figures = [figures for figures in seen.values() if figures is not None]
        self.stats = replace(
            self.stats,
            documents=sum(one.documents for one in figures),
            failures=sum(one.failures for one in figures),
            size_bytes=sum(one.size_bytes for one in figures),
            indexed_ratio=min((one.indexed_ratio for one in figures), default=math.nan),
        )
        for index, one in seen.items():
            if one is not None and one.indexed_ratio == 1:
                await self._rebuild_if_blind(index)

    async def _rebuild_if_blind(self, index: ProbeIndex) -> None:
        again_at = self._rebuilt_at.get(index, -math.inf) + _REBUILD_AGAIN_S
        if time.monotonic() < again_at or not await self._is_blind(index):
            return
        if await self._indexes.rebuild(index, self._is_blind):
            self._rebuilt_at[index] = time.monotonic()
            self.stats = replace(self.stats, rebuilds=self.stats.rebuilds + 1)

    async def _look_for_ever(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                await self.look()
            except Exception as error:  # of any kind: the next check follows
                self.stats = IndexStats(rebuilds=self.stats.rebuilds)
                level = logging.DEBUG if isinstance(error, StoreError) else logging.WARNING
                _log.log(level, "cannot check the search indexes: %r", error)
