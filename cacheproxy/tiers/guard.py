"""Guards the tiers against a slow or broken store, with deadlines and circuit breakers.

A lookup that fails or misses its deadline is a miss, counted and logged at a bounded rate: a broken
cache never fails a request. At its deadline a call is cancelled, and its parts that have not begun
never do.

After several failures the circuit opens, and requests skip the store. To find out whether the store
has recovered, the last call that failed is repeated for one text in the background: no request
waits for that.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from cacheproxy.concurrency.background import stop_tasks
from cacheproxy.concurrency.breaker import BreakerPolicy
from cacheproxy.errors import StoreError
from cacheproxy.stores.protocol import Neighbour, Partition, Store
from cacheproxy.telemetry.metrics import Metrics
from cacheproxy.tiers.circuit import Circuit, StoreOp
from cacheproxy.tiers.lookups import KeyLookups

logger = logging.getLogger(__name__)

T = TypeVar("T")
Call = Callable[[], Coroutine[Any, Any, T]]

_TEXTS_PER_DEADLINE = 128
"""A lookup gets one deadline for each so many texts: inference of one text takes about a
millisecond, so waiting for the cache still pays. Lookups that are combined into one call stay
within this number."""

_GRACE_S = 1e-3
"""Added to each deadline: one iteration of the event loop, which reads a reply that has arrived."""

_LEAST_SHARE = 0.5
"""A call is skipped if less than this share of its deadline is left after queueing. A healthy store
might not answer in time, and its circuit would open."""


class StoreGuard:
    """The store's lookups as the tiers see them; used from one event loop."""

    def __init__(
        self,
        store: Store,
        *,
        deadline_s: float,
        metrics: Metrics,
        policy: BreakerPolicy | None = None,
    ) -> None:
        self._store = store
        policy = policy or BreakerPolicy()
        self._gets = _GuardedOp("get", deadline_s, policy, metrics)
        self._searches = _GuardedOp("nearest", deadline_s, policy, metrics)
        self._lookups = KeyLookups(
            self._get, calls_at_once=store.lookups_at_once, most_keys=_TEXTS_PER_DEADLINE
        )

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return each key's record; None if there is none or the store did not answer."""
        found = await self._lookups.find(keys)
        return [None] * len(keys) if found is None else found

    async def get(self, key: bytes) -> bytes | None:
        """Return one key's record, as `get_many`."""
        found = await self._lookups.find((key,))
        return None if found is None else found[0]

    async def _get(self, keys: Sequence[bytes], asked_at: float) -> list[bytes | None] | None:
        return await self._gets.make(
            lambda: self._store.get_many(keys),
            lambda: self._store.get_many(keys[:1]),
            texts=len(keys),
            asked_at=asked_at,
        )

    async def nearest(
        self, partition: Partition, probes: NDArray[np.float32], *, spent_s: float = 0.0
    ) -> list[Neighbour | None]:
        """Return each probe's (float32 [n, d]) nearest entry, None as for `get_many`.

        `spent_s` is how long the request has waited for the store without an answer. If that
        reaches a deadline, the store is not asked again: a store that does not answer costs a
        request one deadline at most. Lookups that were answered late do not count: with all cores
        busy, a fourth of the lookups by probe would be skipped otherwise (measured).
        """
        if spent_s >= self._searches.deadline_s(len(probes)):
            self._searches.skip()
            return [None] * len(probes)
        found = await self._searches.make(
            lambda: self._store.nearest(partition, probes),
            lambda: self._store.nearest(partition, probes[:1]),
            texts=len(probes),
            asked_at=time.monotonic(),
        )
        return [None] * len(probes) if found is None else found

    async def candidates(
        self, partition: Partition, probe: NDArray[np.float32], count: int, *, spent_s: float = 0.0
    ) -> list[Neighbour]:
        """Return up to `count` entries near a probe (float32 [d]), best first; as `nearest`."""
        if spent_s >= self._searches.deadline_s(1):
            self._searches.skip()
            return []

        async def search() -> list[Neighbour]:
            return await self._store.candidates(partition, probe, count)

        return await self._searches.make(search, search, texts=1, asked_at=time.monotonic()) or []

    async def close(self) -> None:
        """Stop testing whether the store has recovered."""
        await self._gets.close()
        await self._searches.close()


class _GuardedOp:
    """Calls of one kind: each within its deadline, none while the circuit is open."""

    def __init__(
        self, op: StoreOp, deadline_s: float, policy: BreakerPolicy, metrics: Metrics
    ) -> None:
        self._op = op
        self._deadline_s = deadline_s
        self._circuit = Circuit(op, policy, metrics)
        self._duration = metrics.store_op_duration.labels(op)
        self._skipped = metrics.store_skipped.labels(op)
        self._probing: asyncio.Task[None] | None = None

    async def make(
        self, call: Call[T], probe: Call[Any], *, texts: int, asked_at: float
    ) -> T | None:
        """Return the result of the call; None if it fails, is late, or is skipped.

        Args:
            call: makes the call.
            probe: makes the same call for one text only.
            texts: number of texts that are looked up.
            asked_at: when the deadline starts; monotonic, seconds.
        """
        deadline_s = self.deadline_s(texts)
        left_s = asked_at + deadline_s - time.monotonic()
        if not self._circuit.is_closed or left_s < _LEAST_SHARE * deadline_s:
            self.skip()
            return None
        answer = await self._answer(call, left_s)
        if not self._circuit.is_closed and self._probing is None:
            self._probing = asyncio.create_task(self._probe(probe))
        return answer

    def deadline_s(self, texts: int) -> float:
        """Return how long a lookup of so many texts may take, seconds."""
        return self._deadline_s * math.ceil(texts / _TEXTS_PER_DEADLINE)

    def skip(self) -> None:
        """Count a skipped call."""
        self._skipped.inc()

    async def close(self) -> None:
        await stop_tasks(self._probing)

    async def _probe(self, probe: Call[Any]) -> None:
        """Repeat the call, with pauses, until the circuit is closed."""
        try:
            while not self._circuit.is_closed:
                await asyncio.sleep(self._circuit.pause_s)
                if self._circuit.begin_probe():
                    await self._answer(probe, self._deadline_s)
        finally:
            self._probing = None

    async def _answer(self, call: Call[T], timeout_s: float) -> T | None:
        began_at = time.monotonic()
        answer, failure = None, None
        try:
            async with asyncio.timeout(None) as limit:
                timer = asyncio.get_running_loop().call_later(timeout_s, _expire, limit)
                try:
                    answer = await call()
                finally:
                    timer.cancel()
        except StoreError as error:
            failure = error
        except TimeoutError:
            failure = StoreError(f"no answer within {timeout_s * 1000:.0f} ms", "timeout")
        except Exception as error:
            logger.exception("unexpected exception in a store call (%s)", self._op)
            failure = StoreError(f"{type(error).__name__}: {error}")
        took_s = time.monotonic() - began_at
        self._duration.observe(took_s)
        if failure is not None:
            self._circuit.failed(failure, took_s=took_s)
            return None
        self._circuit.succeeded()
        return answer


def _expire(limit: asyncio.Timeout) -> None:
    """End a call after the grace period: its answer may have arrived while the loop was busy."""
    limit.reschedule(asyncio.get_running_loop().time() + _GRACE_S)
