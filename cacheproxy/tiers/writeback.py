"""The write-back queue: entries on their way from an answered request into the store.

Bounded: what does not fit is dropped and counted, and is a later miss. Until the store has an
entry, the exact tier reads it from here, so that what was answered once is not computed again.
"""

import asyncio
import logging
from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

from cacheproxy.errors import StoreError
from cacheproxy.metrics import Metrics
from cacheproxy.stores.store import Entry, Store

logger = logging.getLogger(__name__)

_WRITE_ENTRIES = 256
"""Entries per store call: one SQLite transaction or one Redis pipeline of some 500 kB."""

_INTERVAL_S = 0.02
"""From the start of one write to the next, unless a full one waits: a transaction costs more than
ten entries in it."""

_RETRY_S = 0.5
_ATTEMPTS = 3


class _Pending(NamedTuple):
    """An entry, and the moment (`Purges`) at which the work that made it began."""

    entry: Entry
    since: int


class WriteBack:
    """Writes entries to the store, in order, in the background."""

    def __init__(self, store: Store, *, max_entries: int, metrics: Metrics) -> None:
        self._store = store
        self._max_entries = max_entries
        self._pending: dict[bytes, _Pending] = {}
        self._arrived = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        self._stored = metrics.writeback_stored
        self._dropped = metrics.writeback_dropped
        self._errors = metrics.store_errors
        metrics.writeback_queue.set_function(lambda: len(self._pending))

    def start(self) -> None:
        """Start writing in the background of the running event loop."""
        self._task = asyncio.create_task(self._run(), name="write-back")

    async def stop(self, timeout_s: float) -> None:
        """Write what is queued, within `timeout_s`; what is then left is dropped and counted."""
        self._stopping = True
        try:
            await asyncio.wait_for(self._idle.wait(), timeout_s)
        except TimeoutError:
            logger.warning("%d entries were not stored before the end", len(self._pending))
            self._dropped.labels("shutdown").inc(len(self._pending))
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    def put(self, entry: Entry, since: int) -> bool:
        """Queue an entry; return whether there was room for it.

        `since` is the moment at which the work that made it began: the entry is not read here once
        it is purged, and the store decides whether it is written.
        """
        known = self._pending.get(entry.key)
        if known is None and len(self._pending) >= self._max_entries:
            self._dropped.labels("full").inc()
            return False
        if known is not None and known.entry.generation > entry.generation:
            # Begun before a purge, and it must not take the place of what was begun after it.
            self._dropped.labels("purged").inc()
            return True
        self._pending[entry.key] = _Pending(entry, since)
        self._idle.clear()
        self._arrived.set()
        return True

    def get(self, key: bytes) -> bytes | None:
        """Return the record of an entry that the store may not have yet, unless it is purged."""
        pending = self._pending.get(key)
        if pending is None:
            return None
        entry, since = pending
        namespace_id = entry.partition.namespace_id
        is_untouched = self._store.purges.is_untouched(namespace_id, key, since)
        return entry.record if is_untouched else None

    async def _run(self) -> None:
        now = asyncio.get_running_loop().time
        next_at = now()
        while True:
            await self._arrived.wait()
            if len(self._pending) < _WRITE_ENTRIES and not self._stopping:
                await asyncio.sleep(max(next_at - now(), 0))
            next_at = now() + _INTERVAL_S
            batch = list(islice(self._pending.values(), _WRITE_ENTRIES))
            if not batch:
                self._arrived.clear()
                self._idle.set()
                continue
            written = await self._write([pending.entry for pending in batch])
            if written is not None:
                self._stored.inc(written)
                self._dropped.labels("purged").inc(len(batch) - written)
            else:
                self._dropped.labels("error").inc(len(batch))
            for pending in batch:
                # A newer entry of the same key may have come meanwhile; it is still to be written.
                if self._pending.get(pending.entry.key) is pending:
                    del self._pending[pending.entry.key]

    async def _write(self, batch: Sequence[Entry]) -> int | None:
        """Return how many entries were written, None if the store would not take them."""
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return await self._store.put_many(batch)
            except StoreError as error:
                self._errors.labels(error.kind).inc()
                logger.warning(
                    "%d entries not stored (attempt %d of %d): %s",
                    *(len(batch), attempt, _ATTEMPTS, error),
                )
                await asyncio.sleep(_RETRY_S * attempt)
        return None
