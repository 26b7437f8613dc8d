"""Between the tiers and a store that may be slow or broken: a deadline on every call, no errors.

What the store cannot answer in time is a miss, counted and logged at a bounded rate; a sick cache
never fails a request. A call that is given up is cancelled: what of it has not begun never does.
"""

import asyncio
import logging
import time
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from cacheproxy.errors import StoreError, StoreErrorKind
from cacheproxy.metrics import Metrics
from cacheproxy.stores.store import Neighbour, Partition, Store

logger = logging.getLogger(__name__)

T = TypeVar("T")

_TEXTS_PER_DEADLINE = 128
"""A lookup of more texts gets a further deadline for each so many: one text of inference costs
about a millisecond, so that waiting for the cache stays worth it."""

_LOG_EVERY_S = 10.0


class StoreGuard:
    """The store's lookups as the tiers see them."""

    def __init__(self, store: Store, *, deadline_s: float, metrics: Metrics) -> None:
        self._store = store
        self._deadline_s = deadline_s
        self._up = metrics.store_up
        self._errors = metrics.store_errors
        self._get_duration = metrics.store_op_duration.labels("get")
        self._nearest_duration = metrics.store_op_duration.labels("nearest")
        self._abandoned: set[asyncio.Task[Any]] = set()
        self._next_log_at = 0.0

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return each key's record; None where there is none or the store did not answer."""
        with self._get_duration.time():
            found = await self._answer(self._store.get_many(keys), len(keys))
        return [None] * len(keys) if found is None else found

    async def nearest(
        self, partition: Partition, probes: NDArray[np.float32]
    ) -> list[Neighbour | None]:
        """Return each probe's (float32 [n, d]) nearest entry, None as for `get_many`."""
        with self._nearest_duration.time():
            found = await self._answer(self._store.nearest(partition, probes), len(probes))
        return [None] * len(probes) if found is None else found

    async def _answer(self, call: Coroutine[Any, Any, T], texts: int) -> T | None:
        task = asyncio.ensure_future(call)
        deadline_s = self._deadline_s * (1 + texts // _TEXTS_PER_DEADLINE)
        # Not asyncio.timeout: where the event loop itself was late, it would drop an answer that
        # has already come.
        done, _ = await asyncio.wait({task}, timeout=deadline_s)
        if not done:
            task.cancel()
            self._abandoned.add(task)
            task.add_done_callback(self._forget)
            self._fail("timeout", f"no answer within {deadline_s * 1000:.0f} ms")
            return None
        try:
            answer = task.result()
        except StoreError as error:
            self._fail(error.kind, str(error))
            return None
        self._up.set(1)
        return answer

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._abandoned.discard(task)
        if not task.cancelled():
            task.exception()

    def _fail(self, kind: StoreErrorKind, message: str) -> None:
        self._errors.labels(kind).inc()
        self._up.set(0)
        if time.monotonic() >= self._next_log_at:
            self._next_log_at = time.monotonic() + _LOG_EVERY_S
            logger.warning("the store did not answer, going on without it: %s", message)
