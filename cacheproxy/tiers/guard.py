"""Protects the tiers from a slow or broken store with deadlines and circuit breakers.

A lookup that fails or misses its deadline is a miss, counted and logged at a bounded rate; an
unhealthy store never fails a request. A call that times out is cancelled.

After several failures the circuit opens and the store is not called, so that requests stop paying
for it. A background task then repeats the call that failed last, for one text, until the store
answers again. No request waits for that.
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
from cacheproxy.errors import StoreError
from cacheproxy.stores.protocol import Neighbour, Partition, Store
from cacheproxy.telemetry.metrics import Metrics
from cacheproxy.tiers.breaker import BreakerPolicy
from cacheproxy.tiers.circuit import Circuit, StoreOp
from cacheproxy.tiers.lookups import KeyLookups

logger = logging.getLogger(__name__)

T = TypeVar("T")
Call = Callable[[], Coroutine[Any, Any, T]]

_TEXTS_PER_DEADLINE = 128
"""The deadline of a lookup grows by one unit for each further group of this many texts: inference
takes about a millisecond per text, so the wait stays worthwhile. Combined lookups stay within this
number."""

_GRACE_S = 1e-3
"""Grace after a deadline: one turn of the event loop, in which a reply that arrived is read."""

_LEAST_SHARE = 0.5
"""A share of the deadline. A call that has waited longer for its turn is not made: even a healthy
store might miss the rest of the deadline, which would count against it."""


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
        self._gets = _Calls("get", deadline_s, policy, metrics)
        self._searches = _Calls("nearest", deadline_s, policy, metrics)
        self._lookups = KeyLookups(
            self._get, calls_at_once=store.lookups_at_once, most_keys=_TEXTS_PER_DEADLINE
        )

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return each key's record; None where there is none or the store did not answer."""
        found = await self._lookups.find(keys)
        return [None] * len(keys) if found is None else found

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

        `spent_s` is how long the request has already waited for the store. If that is a whole
        deadline, the store is not called again, so an unresponsive store costs a request one
        deadline. A late answer does not reduce the deadline of the next call: with all cores busy,
        a quarter of the lookups by probe would otherwise fail (measured).
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
        """Stop probing the store."""
        await self._gets.close()
        await self._searches.close()


class _Calls:
    """Makes calls of one kind: each within its deadline, none while the circuit is open."""

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
        """Return the result of the call; None if it fails, is late, or is not made.

        Args:
            call: makes the call.
            probe: makes the same call for one text only.
            texts: the number of texts looked up.
            asked_at: the start of the deadline; monotonic, seconds.
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
        """Return how long a lookup of this many texts may take."""
        return self._deadline_s * math.ceil(texts / _TEXTS_PER_DEADLINE)

    def skip(self) -> None:
        """Count a call that is not made."""
        self._skipped.inc()

    async def close(self) -> None:
        await stop_tasks(self._probing)

    async def _probe(self, probe: Call[Any]) -> None:
        """Repeat the call at intervals until the circuit is closed."""
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
    """Cancel a call soon, unless its reply has arrived: the event loop may have been late."""
    limit.reschedule(asyncio.get_running_loop().time() + _GRACE_S)
