"""The circuit of one kind of store call: its breaker, its counters and its log lines.

Lookups by key, lookups by probe and writes have a circuit each: a slow search must not switch exact
lookups off, and a Redis that refuses writes still answers reads.
"""

import logging
import random
import time
from collections.abc import Callable
from typing import Literal

from cacheproxy.concurrency.breaker import BreakerPolicy
from cacheproxy.errors import StoreError, StoreErrorKind
from cacheproxy.telemetry.metrics import Metrics
from cacheproxy.tiers.timed_breaker import TimedBreaker

logger = logging.getLogger(__name__)

StoreOp = Literal["get", "nearest", "put"]

_REFUSALS: tuple[StoreErrorKind, ...] = ("readonly", "oom", "invalid")
"""Errors with which a store that can be reached refuses a call."""

_LOG_EVERY_S = 10.0


class Circuit:
    """Whether calls of one kind may be made; counts and logs how they end."""

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
        gauge = metrics.store_breaker_state.labels(op)
        self._breaker = TimedBreaker(policy, gauge=gauge, monotonic=monotonic, chance=chance)
        self._monotonic = monotonic
        self._up = metrics.store_up
        self._errors = metrics.store_errors
        self._log_failure_at = 0.0
        self._log_opening_at = 0.0
        self._is_opening_logged = False

    @property
    def is_closed(self) -> bool:
        """Whether calls may be made."""
        return self._breaker.is_closed

    @property
    def pause_s(self) -> float:
        """The time until an open circuit may be probed, seconds."""
        return self._breaker.pause_s

    def begin_probe(self, *, early: bool = False) -> bool:
        """Return whether the caller may make the probe; `early`: before the pause is over."""
        return self._breaker.begin_probe(early=early)

    def succeeded(self) -> None:
        """Report a call that was answered."""
        self._up.set(1)
        if self._breaker.succeeded() and self._is_opening_logged:
            logger.info("store calls work again (%s)", self._op)

    def failed(self, error: StoreError, *, took_s: float) -> None:
        """Report a call that failed after `took_s` seconds."""
        self._errors.labels(error.kind).inc()
        self._up.set(int(error.kind in _REFUSALS))
        was_closed, now = self.is_closed, self._monotonic()
        if error.kind == "invalid":
            # The call was wrong, but it was answered in time, which is all that a probe asks.
            self._breaker.succeeded()
        else:
            self._breaker.failed(began_at=now - took_s)
        if was_closed:
            self._log(error, now)

    def _log(self, error: StoreError, now: float) -> None:
        if not self.is_closed:
            self._is_opening_logged = now >= self._log_opening_at
            if self._is_opening_logged:
                self._log_opening_at = now + _LOG_EVERY_S
                logger.warning("circuit open for store calls (%s): %s", self._op, error)
        elif now >= self._log_failure_at:
            self._log_failure_at = now + _LOG_EVERY_S
            logger.warning("a store call failed (%s): %s", self._op, error)
