"""A circuit breaker for store calls, as a pure state machine.

While closed, every call is allowed. After several consecutive failures, or too many failures among
the most recent calls, it opens and no call is allowed. After a pause it is half-open: one call, the
probe, is allowed. If the probe succeeds, the breaker closes; if it fails, the breaker opens again
for twice as long.

Concurrent calls that all fail count as one failure, because one hiccup fails the calls of many
clients. (Without this rule, five such failures in a row kept a healthy store cut off for most of
the time on a machine whose cores were all busy with inference; measured.)

It does no I/O; the time (monotonic, seconds) is an argument.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

BreakerState = Literal["closed", "half-open", "open"]


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """When a breaker opens, and for how long.

    The defaults: five consecutive failures open the breaker, so that one network hiccup costs no
    hits and an outage costs a single client five deadlines. Eight failures among twenty calls are
    typical of a store that answers every other call, because some of its failures coincide. The
    first pause is short, because most outages are short (a failover, a slow command). The longest
    pause is two seconds: a probe costs the store one small call and delays no request, so a store
    that recovers is soon used again.

    Attributes:
        failures_in_a_row: number of consecutive failures that open the breaker.
        failures: number of failures among the last `calls` calls that open it.
        calls: number of recent calls that are considered.
        window_s: older calls are not considered.
        first_pause_s, longest_pause_s: pauses double from the first to the longest.
    """

    failures_in_a_row: int = 5
    failures: int = 8
    calls: int = 20
    window_s: float = 10.0
    first_pause_s: float = 0.1
    longest_pause_s: float = 2.0


@dataclass(frozen=True, slots=True)
class _Outcome:
    at: float
    is_failure: bool


class Breaker:
    """One breaker.

    Attributes:
        state: closed, open or half-open.
        probe_at: the earliest time at which an open breaker may be probed.
    """

    def __init__(self, policy: BreakerPolicy, chance: Callable[[], float]) -> None:
        """Make a closed breaker; `chance` returns numbers in [0, 1) that randomise the pauses."""
        self.state: BreakerState = "closed"
        self.probe_at = 0.0
        self._policy = policy
        self._chance = chance
        self._recent: deque[_Outcome] = deque(maxlen=policy.calls)
        self._pause_s = 0.0
        self._failed_at = float("-inf")
        self._closed_at = float("-inf")

    def begin_probe(self, now: float) -> bool:
        """Return whether the caller may make the probe; it must then report the result."""
        if self.state != "open" or now < self.probe_at:
            return False
        self.state = "half-open"
        return True

    def succeeded(self, now: float) -> None:
        """Record a call that succeeded."""
        if self.state == "closed":
            self._recent.append(_Outcome(now, is_failure=False))
        elif self.state == "half-open":
            self.state = "closed"
            self._closed_at = now

    def failed(self, now: float, *, began_at: float) -> None:
        """Record a call that failed or missed its deadline."""
        if self.state == "half-open":
            self._open(now)
        elif self.state == "closed" and began_at >= self._failed_at:
            self._failed_at = now
            self._recent.append(_Outcome(now, is_failure=True))
            if self._is_too_much(now):
                self._open(now)

    def _is_too_much(self, now: float) -> bool:
        since = now - self._policy.window_s
        recent = [outcome.is_failure for outcome in self._recent if outcome.at >= since]
        run = self._policy.failures_in_a_row
        if len(recent) >= run and all(recent[-run:]):
            return True
        return len(recent) == self._policy.calls and sum(recent) >= self._policy.failures

    def _open(self, now: float) -> None:
        policy = self._policy
        # A store that fails again soon after the breaker closed has not recovered.
        has_recovered = self.state == "closed" and now - self._closed_at > policy.window_s
        if has_recovered or not self._pause_s:
            self._pause_s = policy.first_pause_s
        else:
            self._pause_s = min(2 * self._pause_s, policy.longest_pause_s)
        # Shorter by up to half, so that not all processes probe at the same moment.
        self.probe_at = now + self._pause_s * (1 - self._chance() / 2)
        self.state = "open"
        self._recent.clear()
