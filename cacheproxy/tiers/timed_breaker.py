"""A circuit breaker at work: `breaker` has the rules, and this adds a clock and a gauge.

Stores, upstreams and an engine with a stand-in each have one; what they count and log differs, and
is theirs.
"""

import random
import time
from collections.abc import Callable

from prometheus_client import Gauge

from cacheproxy.concurrency.breaker import Breaker, BreakerPolicy, BreakerState

_GAUGE_VALUES: dict[BreakerState, int] = {"closed": 0, "half-open": 1, "open": 2}


class TimedBreaker:
    """One breaker; a gauge, if given, shows its state: 0 closed, 1 half-open, 2 open."""

    def __init__(
        self,
        policy: BreakerPolicy,
        *,
        gauge: Gauge | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """Start closed.

        Args:
            policy: when it opens, and for how long.
            gauge: shows the state.
            monotonic: the time, seconds.
            chance: uniform in [0, 1); varies the pauses.
        """
        self._breaker = Breaker(policy, chance)
        self._gauge = gauge
        self._monotonic = monotonic
        self._show()

    @property
    def is_closed(self) -> bool:
        """Whether every call may be made."""
        return self._breaker.state == "closed"

    @property
    def pause_s(self) -> float:
        """The time until an open breaker may be probed, seconds."""
        return max(self._breaker.probe_at - self._monotonic(), 0.0)

    def may_call(self) -> bool:
        """Return whether the caller may make a call, as the probe if the breaker is not closed.

        A caller that may has to report how the call ended.
        """
        return self.is_closed or self.begin_probe()

    def begin_probe(self, *, early: bool = False) -> bool:
        """Return whether the caller may make the probe; `early`: before the pause is over."""
        may = self._breaker.begin_probe(float("inf") if early else self._monotonic())
        self._show()
        return may

    def succeeded(self) -> bool:
        """Report a call that was answered; return whether that closed the breaker."""
        was_closed = self.is_closed
        self._breaker.succeeded(self._monotonic())
        if was_closed or not self.is_closed:
            return False
        self._show()
        return True

    def failed(self, *, began_at: float) -> bool:
        """Report a call that failed; return whether that opened a closed breaker.

        `began_at` is when the call began, by the breaker's clock.
        """
        was_closed = self.is_closed
        self._breaker.failed(self._monotonic(), began_at=began_at)
        self._show()
        return was_closed and not self.is_closed

    def abandoned(self, *, began_at: float) -> None:
        """Report a call whose caller has left: as a probe it failed, else it says nothing."""
        if self._breaker.state == "half-open":
            self.failed(began_at=began_at)

    def _show(self) -> None:
        if self._gauge is not None:
            self._gauge.set(_GAUGE_VALUES[self._breaker.state])
