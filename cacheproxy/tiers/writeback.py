"""The write-back queue: entries of answered requests that are still to be stored.

The queue is bounded, and no tenant takes all of it (`fairness.pool`). An entry that does not fit is
dropped and counted, and costs a later miss.
Until the store has an entry, the exact tier reads it from the queue, so that a repeated request is
not computed again.

While the store is unreachable or refuses all writes, entries wait: the circuit opens, and one entry
at a time tests whether writes work again. An entry that is refused for its own sake is dropped, so
that others do not wait behind it.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from cacheproxy.concurrency.background import stop_tasks
from cacheproxy.concurrency.breaker import BreakerPolicy
from cacheproxy.errors import StoreError, StoreErrorKind
from cacheproxy.fairness.owner import current_owner
from cacheproxy.fairness.pool import FairPool
from cacheproxy.stores.protocol import Entry, Store
from cacheproxy.telemetry.metrics import Metrics
from cacheproxy.tiers.circuit import Circuit

logger = logging.getLogger(__name__)

_WRITE_ENTRIES = 256
"""Entries per store call: one SQLite transaction or one Redis pipeline of some 500 kB."""

_INTERVAL_S = 0.02
"""From the start of one write to the next, unless a full batch waits: a transaction costs more than
ten entries in it."""

_WRITE_S = 1.0
_ENTRY_S = 0.02
"""The longest time for a write, and for each entry in it: Redis takes 0.1 s for 256 (measured)."""

_POLICY = BreakerPolicy(failures_in_a_row=1)
"""Opens at the first failure, because entries can wait."""

_OF_THE_ENTRY: tuple[StoreErrorKind, ...] = ("invalid", "other")
"""Failures that one entry may cause; after any other one, all entries wait for the store."""


class _Pending(NamedTuple):
    """An entry that is to be written.

    Attributes:
        entry: as it is to be stored.
        since: the moment (`Purges`) at which the work for it began.
        owner: for whom that was.
        waits_for: what has to be done before it is written, or None.
    """

    entry: Entry
    since: int
    owner: str
    waits_for: asyncio.Future[Any] | None = None

    @property
    def is_ready(self) -> bool:
        """Whether nothing is left to wait for."""
        return self.waits_for is None or self.waits_for.done()


class WriteBack:
    """Writes entries to the store, in order, in the background."""

    def __init__(
        self,
        store: Store,
        *,
        max_entries: int,
        metrics: Metrics,
        policy: BreakerPolicy = _POLICY,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._places = FairPool(max_entries)
        self._now = now
        self._pending: dict[bytes, _Pending] = {}
        self._arrived = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._circuit = Circuit("put", policy, metrics)
        self._write_entries = _WRITE_ENTRIES
        self._duration = metrics.store_op_duration.labels("put")
        self._stored = metrics.writeback_stored
        self._dropped = metrics.writeback_dropped
        metrics.writeback_queue.set_function(lambda: len(self._pending))

    def start(self) -> None:
        """Start writing in the background of the running event loop."""
        self._task = asyncio.create_task(self._run(), name="write-back")

    async def stop(self, timeout_s: float) -> None:
        """Write the queue within `timeout_s`; entries left by then are dropped and counted.

        If writes fail at the moment, one more attempt is made, without waiting.
        """
        self._stopping.set()
        self._arrived.set()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=timeout_s)
            await stop_tasks(self._task)
        if self._pending:
            logger.warning(
                "%d entries were dropped at shutdown: they could not be stored in time",
                len(self._pending),
            )
            self._drop(list(self._pending.values()), "shutdown")

    def put(self, entry: Entry, since: int, waits_for: asyncio.Future[Any] | None = None) -> bool:
        """Queue an entry; return whether there was room for it.

        It is written once `waits_for` is done, which may put it again in another form.
        `since` is the moment at which the work that made it began: the entry is not read here once
        it is purged, and the store decides whether it is written.
        """
        known = self._pending.get(entry.key)
        owner = current_owner() if known is None else known.owner
        if known is None and not self._places.take(owner):
            self._dropped.labels("full").inc()
            return False
        if known is not None and known.entry.generation > entry.generation:
            # Its work began before a purge: it must not replace an entry from after the purge.
            self._dropped.labels("purged").inc()
            return True
        self._pending[entry.key] = _Pending(entry, since, owner, waits_for)
        self._idle.clear()
        self._arrived.set()
        if waits_for is not None:
            waits_for.add_done_callback(lambda _: self._arrived.set())
        return True

    def get(self, key: bytes) -> bytes | None:
        """Return the record of a live entry that the store may not have yet."""
        pending = self._pending.get(key)
        if pending is None or pending.entry.expires_at <= self._now():
            return None
        namespace_id = pending.entry.partition.namespace_id
        if not self._store.purges.is_untouched(namespace_id, key, pending.since):
            return None
        return pending.entry.record

    def waiting(self, namespace_id: str, keys: Collection[bytes]) -> int:
        """Return how many entries of keys, or of a namespace without keys, are yet to be stored."""
        if keys:
            return sum(key in self._pending for key in keys)
        namespaces = (one.entry.partition.namespace_id for one in self._pending.values())
        return sum(one == namespace_id for one in namespaces)

    async def _run(self) -> None:
        now = asyncio.get_running_loop().time
        next_at = now()
        while await self._is_needed():
            is_probe = not self._circuit.is_closed
            if is_probe:
                await self._pause(self._circuit.pause_s)
            elif len(self._pending) < self._write_entries:
                await self._pause(next_at - now())
            next_at = now() + _INTERVAL_S
            batch, is_last = self._next(), is_probe and self._stopping.is_set()
            if batch and (not is_probe or self._circuit.begin_probe(early=is_last)):
                await self._write_some(batch)
            if is_last and not self._circuit.is_closed:
                return

    async def _is_needed(self) -> bool:
        """Wait for an entry that is ready; return False when the queue is empty and stopping."""
        while not (self._stopping.is_set() and self._pending):
            if any(pending.is_ready for pending in self._pending.values()):
                return True
            if not self._pending:
                self._idle.set()
                if self._stopping.is_set():
                    return False
            self._arrived.clear()
            await self._arrived.wait()
        return True

    async def _pause(self, seconds: float) -> None:
        """Wait, but no longer than until `stop` is called."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), max(seconds, 0))

    def _next(self) -> list[_Pending]:
        """Return the oldest entries, as many as the last writes allow."""
        now = self._now()
        batch: list[_Pending] = []
        expired: list[_Pending] = []
        is_last = self._stopping.is_set()
        for pending in self._pending.values():
            if not (pending.is_ready or is_last):
                continue
            (batch if pending.entry.expires_at > now else expired).append(pending)
            if len(batch) == self._write_entries:
                break
        self._drop(expired, "expired")
        return batch

    async def _write_some(self, batch: Sequence[_Pending]) -> None:
        began_at = time.monotonic()
        done = await self._write([pending.entry for pending in batch])
        took_s = time.monotonic() - began_at
        self._duration.observe(took_s)
        if isinstance(done, int):
            self._circuit.succeeded()
            self._stored.inc(done)
            self._dropped.labels("purged").inc(len(batch) - done)
            self._forget(batch)
            self._write_entries = min(2 * self._write_entries, _WRITE_ENTRIES)
            return
        self._circuit.failed(done, took_s=took_s)
        if len(batch) == 1 and done.kind in _OF_THE_ENTRY:
            self._drop(batch, "error")
        # Start again with one: this isolates an entry at fault and suits a slow store.
        self._write_entries = 1

    async def _write(self, batch: Sequence[Entry]) -> int | StoreError:
        """Return how many entries were written, without those that a purge forbids.

        On failure, return the error; some entries may be stored nevertheless.
        """
        timeout_s = _WRITE_S + _ENTRY_S * len(batch)
        try:
            async with asyncio.timeout(timeout_s):
                return await self._store.put_many(batch)
        except StoreError as error:
            return error
        except TimeoutError:
            return StoreError(f"no reply within {timeout_s:.0f} s", "timeout")
        except Exception as error:
            logger.exception("unexpected exception in a store call (put)")
            return StoreError(f"{type(error).__name__}: {error}")

    def _drop(self, waiting: Sequence[_Pending], reason: str) -> None:
        self._forget(waiting)
        if waiting:
            self._dropped.labels(reason).inc(len(waiting))

    def _forget(self, waiting: Sequence[_Pending]) -> None:
        for pending in waiting:
            # A newer entry of the same key may have arrived meanwhile, and is still to be written.
            if self._pending.get(pending.entry.key) is pending:
                del self._pending[pending.entry.key]
                self._places.give_back(pending.owner)
