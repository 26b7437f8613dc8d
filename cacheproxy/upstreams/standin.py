"""Two engines of one model, of which the second stands in where the first fails.

What the stand-in infers is served and not kept: the two may differ in the last bits, and an entry
is to hold what its model's own engine gives. The first is behind a circuit breaker, so that its
failures are soon not waited for.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

from cacheproxy.concurrency.breaker import BreakerPolicy
from cacheproxy.errors import ApiError
from cacheproxy.inference.engine import Engine, Given, Inferred, Tasks
from cacheproxy.inference.input import Input
from cacheproxy.inference.queue import Reservation
from cacheproxy.keys import KeyScope
from cacheproxy.tiers.timed_breaker import TimedBreaker

_POLICY = BreakerPolicy(first_pause_s=1.0, longest_pause_s=30.0)


class StandIn:
    """An `Engine` (see there for the methods) over two; keys are those of `keyed_by`."""

    is_overloaded = False

    def __init__(
        self,
        first: Engine,
        second: Engine,
        keyed_by: Engine,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._first = first
        self._second = second
        self._keyed_by = keyed_by
        self._monotonic = monotonic
        self._breaker = TimedBreaker(_POLICY, monotonic=monotonic)
        self._work = Tasks()

    def encode(self, inputs: Sequence[Input]) -> Sequence[Sequence[int]]:
        """Return the ids as the local model reads them."""
        return self._keyed_by.encode(inputs)

    def is_cut(self, ids: Sequence[int]) -> bool:
        """Return whether text may have been cut."""
        return self._keyed_by.is_cut(ids)

    def probe_sees_all(self, ids: Sequence[int]) -> bool:
        """Return whether the ids hold all of the input that the result depends on."""
        return self._keyed_by.probe_sees_all(ids)

    def key_of(self, scope: KeyScope, given: Given) -> bytes:
        """Return the local model's key."""
        return self._keyed_by.key_of(scope, given)

    def begin(self, tokens: int) -> None:
        """Admit everything: what one refuses, the other may take."""

    def end(self, reservation: Reservation) -> None:
        """Do nothing: no place is kept."""

    def submit(
        self, givens: Sequence[Given], reservation: Reservation | None = None
    ) -> list[asyncio.Future[Inferred]]:
        """Ask the first, and the second for what that fails in."""
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[Inferred]] = [loop.create_future() for _ in givens]
        self._work.start(self._infer(givens, futures), futures)
        return futures

    def read(self, result: Inferred, given: Given) -> Inferred:
        """Return the result, which is one already."""
        return result

    async def _infer(
        self, givens: Sequence[Given], futures: Sequence[asyncio.Future[Inferred]]
    ) -> None:
        left = list(range(len(givens)))
        if self._breaker.may_call():
            results = await self._ask_first(givens)
            left = [i for i, result in enumerate(results) if _is_failure(result)]
            _deliver(futures, results, except_for=left)
        if left:
            results = await _run(self._second, [givens[i] for i in left])
            results = [
                result if isinstance(result, ApiError) else result._replace(may_keep=False)
                for result in results
            ]
            _deliver([futures[i] for i in left], results)

    async def _ask_first(self, givens: Sequence[Given]) -> list[Inferred | ApiError]:
        began_at = self._monotonic()
        try:
            results = await _run(self._first, givens)
        except BaseException:
            self._breaker.abandoned(began_at=began_at)
            raise
        if any(map(_is_failure, results)):
            self._breaker.failed(began_at=began_at)
        else:
            self._breaker.succeeded()
        return results


async def _run(engine: Engine, givens: Sequence[Given]) -> list[Inferred | ApiError]:
    """Return each one's result or failure."""
    try:
        futures: list[asyncio.Future[Any]] = engine.submit(givens)
    except ApiError as error:
        return [error] * len(givens)
    try:
        await asyncio.wait(futures)
    except asyncio.CancelledError:
        for future in futures:
            future.cancel()
        raise
    return [_outcome(engine, future, given) for future, given in zip(futures, givens, strict=True)]


def _outcome(engine: Engine, future: asyncio.Future[Any], given: Given) -> Inferred | ApiError:
    try:
        return engine.read(future.result(), given)
    except ApiError as error:
        return error


def _is_failure(result: Inferred | ApiError) -> bool:
    """Return whether somebody else might do better; a client's mistake stays one."""
    return isinstance(result, ApiError) and (result.status >= 500 or result.status == 429)


def _deliver(
    futures: Sequence[asyncio.Future[Inferred]],
    results: Sequence[Inferred | ApiError],
    except_for: Sequence[int] = (),
) -> None:
    for place, (future, result) in enumerate(zip(futures, results, strict=True)):
        if future.done() or place in except_for:
            continue
        if isinstance(result, ApiError):
            future.set_exception(result)
        else:
            future.set_result(result)
