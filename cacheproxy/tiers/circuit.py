"""One kind of store call and its breaker, with what both tell the operator.

Lookups by key, lookups by probe and writes have a circuit each: a slow search must not switch exact
lookups off, and a Redis that refuses writes still answers reads.
"""

import logging
import random
import time
from collections.abc import Callable
from typing import Literal

from cacheproxy.errors import StoreError, StoreErrorKind
from cacheproxy.telemetry.metrics import Metrics
from cacheproxy.tiers.breaker import Breaker, BreakerPolicy, BreakerState

logger = logging.getLogger(__name__)

StoreOp = Literal["get", "nearest", "put"]

_STATE_VALUES: dict[BreakerState, int] = {"closed": 0, "half-open": 1, "open": 2}

_ANSWERS: tuple[StoreErrorKind, ...] = ("readonly", "oom", "invalid")
"""Refusals of a store that is there, and well enough to say so."""

_LOG_EVERY_S = 10.0


class Circuit:
    """Whether calls of one kind may be made; counts, shows and logs how they end."""

    def __init__(
        self,
        op: StoreOp,
        policy: BreakerPolicy,
        metrics: Metrics,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._op = op
        self._breaker = Breaker(policy, chance)
        self._monotonic = monotonic
        self._up = metrics.store_up
        self._errors = metrics.store_errors
        self._state = metrics.store_breaker_state.labels(op)
        self._state.set(_STATE_VALUES["closed"])
        self._log_failure_at = 0.0
        self._log_opening_at = 0.0
        self._is_opening_logged = False

    @property
    def is_closed(self) -> bool:
        """Whether calls may be made."""
        return self._breaker.state == "closed"

    @property
    def pause_s(self) -> float:
        """The time until an open circuit is to be probed, seconds."""
        return max(self._breaker.probe_at - self._monotonic(), 0.0)

    def begin_probe(self, *, early: bool = False) -> bool:
        """Return whether the caller may make the one call that finds out; `early`: at any time."""
        may = self._breaker.begin_probe(float("inf") if early else self._monotonic())
        self._show()
        return may

    def succeeded(self) -> None:
        """Take note of a call that was answered."""
        self._up.set(1)
        was_closed = self.is_closed
        self._breaker.succeeded(self._monotonic())
        if self.is_closed and not was_closed:
            self._show()
            if self._is_opening_logged:
                logger.info("the store answers again (%s)", self._op)

    def failed(self, error: StoreError, *, took_s: float) -> None:
        """Take note of a call that was not answered as it should be, after `took_s`."""
        self._errors.labels(error.kind).inc()
        self._up.set(int(error.kind in _ANSWERS))
        was_closed, now = self.is_closed, self._monotonic()
        if error.kind == "invalid":
            # A mistake in the call, answered in time, which is all that a probe wants to know.
            self._breaker.succeeded(now)
        else:
            self._breaker.failed(now, began_at=now - took_s)
        self._show()
        if was_closed:
            self._log(error, now)

    def _log(self, error: StoreError, now: float) -> None:
        if not self.is_closed:
            self._is_opening_logged = now >= self._log_opening_at
            if self._is_opening_logged:
                self._log_opening_at = now + _LOG_EVERY_S
                logger.warning("the store is let alone for a while (%s): %s", self._op, error)
        elif now >= self._log_failure_at:
            self._log_failure_at = now + _LOG_EVERY_S
            logger.warning("the store did not answer (%s): %s", self._op, error)

    def _show(self) -> None:
        self._state.set(_STATE_VALUES[self._breaker.state])
