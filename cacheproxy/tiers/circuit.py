"""The circuit breaker of one kind of store call, with its metrics and log lines.

Lookups by key, lookups by probe and writes each have their own circuit: a slow search must not
disable exact lookups, and a Redis that refuses writes still answers reads.
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
"""Errors that show that the store is reachable and answering."""

_LOG_EVERY_S = 10.0


class Circuit:
    """Decides whether calls of one kind may be made; counts and logs their results."""

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
        """Seconds until an open circuit may be probed."""
        return max(self._breaker.probe_at - self._monotonic(), 0.0)

    def begin_probe(self, *, early: bool = False) -> bool:
        """Return whether the caller may make the probe; `early` skips the pause."""
        may = self._breaker.begin_probe(float("inf") if early else self._monotonic())
        self._show()
        return may

    def succeeded(self) -> None:
        """Record a call that succeeded."""
        self._up.set(1)
        was_closed = self.is_closed
        self._breaker.succeeded(self._monotonic())
        if self.is_closed and not was_closed:
            self._show()
            if self._is_opening_logged:
                logger.info("the store answers again (%s)", self._op)

    def failed(self, error: StoreError, *, took_s: float) -> None:
        """Record a call that failed after `took_s` seconds."""
        self._errors.labels(error.kind).inc()
        self._up.set(int(error.kind in _ANSWERS))
        was_closed, now = self.is_closed, self._monotonic()
        if error.kind == "invalid":
            # The call itself was wrong, but the store answered in time, which is all a probe tests.
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
                logger.warning("circuit open for the store (%s): %s", self._op, error)
        elif now >= self._log_failure_at:
            self._log_failure_at = now + _LOG_EVERY_S
            logger.warning("a store call failed (%s): %s", self._op, error)

    def _show(self) -> None:
        self._state.set(_STATE_VALUES[self._breaker.state])
