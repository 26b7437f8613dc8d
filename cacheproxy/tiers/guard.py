"""Between the tiers and a store that may be slow or broken: a deadline on every call, no errors.

What the store cannot answer in time is a miss, counted and logged at a bounded rate; a sick cache
never fails a request. A call that is given up is cancelled: what of it has not begun never does.

Lookups by key that come while another is under way are asked together, in one call: each call
costs several turns of the interpreter lock, which a busy inference does not give for nothing.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
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
about a millisecond, so that waiting for the cache stays worth it. Lookups that are put together
stay below it."""

_LOG_EVERY_S = 10.0


@dataclass(slots=True)
class _Asked:
    """A lookup by key that waits for its turn; `at` is monotonic, seconds."""

    keys: Sequence[bytes]
    at: float
    found: asyncio.Future[list[bytes | None]]


class StoreGuard:
    """The store's lookups as the tiers see them."""

    def __init__(self, store: Store, *, deadline_s: float, metrics: Metrics) -> None:
        self._store = store
        self._deadline_s = deadline_s
        self._up = metrics.store_up
        self._errors = metrics.store_errors
        self._get_duration = metrics.store_op_duration.labels("get")
        self._nearest_duration = metrics.store_op_duration.labels("nearest")
        self._asked: deque[_Asked] = deque()
        self._asking: asyncio.Task[None] | None = None
        self._abandoned: set[asyncio.Task[Any]] = set()
        self._next_log_at = 0.0

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return each key's record; None where there is none or the store did not answer."""
        found = asyncio.get_running_loop().create_future()
        self._asked.append(_Asked(keys, time.monotonic(), found))
        if self._asking is None:
            self._asking = asyncio.ensure_future(self._ask())
        result: list[bytes | None] = await found
        return result

    async def _ask(self) -> None:
        """Ask the store for all keys that wait, until none do."""
        try:
            while self._asked:
                await self._ask_once()
        finally:
            self._asking = None

    async def _ask_once(self) -> None:
        together = [self._asked.popleft()]
        keys = list(together[0].keys)
        while self._asked and len(keys) + len(self._asked[0].keys) <= _TEXTS_PER_DEADLINE:
            together.append(self._asked.popleft())
            keys += together[-1].keys
        try:
            with self._get_duration.time():
                answer = await self._answer(
                    self._store.get_many(keys), len(keys), asked_at=together[0].at
                )
        except Exception as error:  # a mistake of ours: told to those who wait, not to nobody
            for asked in together:
                if not asked.found.done():
                    asked.found.set_exception(error)
            return
        found: list[bytes | None] = [None] * len(keys) if answer is None else answer
        start = 0
        for asked in together:
            end = start + len(asked.keys)
            if not asked.found.done():
                asked.found.set_result(found[start:end])
            start = end

    async def nearest(
        self, partition: Partition, probes: NDArray[np.float32]
    ) -> list[Neighbour | None]:
        """Return each probe's (float32 [n, d]) nearest entry, None as for `get_many`."""
        with self._nearest_duration.time():
            found = await self._answer(
                self._store.nearest(partition, probes), len(probes), asked_at=time.monotonic()
            )
        return [None] * len(probes) if found is None else found

    async def _answer(
        self, call: Coroutine[Any, Any, T], texts: int, *, asked_at: float
    ) -> T | None:
        task = asyncio.ensure_future(call)
        deadline_s = self._deadline_s * (1 + texts // _TEXTS_PER_DEADLINE)
        left_s = max(asked_at + deadline_s - time.monotonic(), 0.0)
        # Not asyncio.timeout: where the event loop itself was late, it would drop an answer that
        # has already come.
        done, _ = await asyncio.wait({task}, timeout=left_s)
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
