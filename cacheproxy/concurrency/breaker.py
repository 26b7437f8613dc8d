"""When to stop asking a store that does not answer, and when to try again: a pure state machine.

While it is closed, every call may be made. After several failures in a row, or too many among the
last calls, it opens, and no call may be made. After a pause it is half-open, and one call, the
probe, may be made. If the probe succeeds, the breaker closes; if it fails, the breaker opens again
for twice as long.

Failed calls that overlapped in time count as one failure, because many clients meet the same
hiccup. (Without this rule, on a machine whose cores were all busy with inference, the circuit of a
healthy store was open most of the time; measured.)

It does no I/O, and the caller passes the time (monotonic, seconds).
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

BreakerState = Literal["closed", "half-open", "open"]


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """When a breaker opens, and for how long.

    The defaults: it opens after five failures in a row, so that one hiccup of the network costs no
    hits, and an outage costs a lone client five deadlines. It opens after eight failures among
    twenty calls, because a store that fails every other time shows fewer than ten: some overlap.
    The first pause is short, because most outages are (a failover, a slow command). The longest is
    two seconds, because a probe costs the store one small call, and requests nothing.

    Attributes:
        failures_in_a_row: as many open it,
        failures: or as many
        calls: among so many,
        window_s: none of them older than this.
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
        state: what may be done now.
        probe_at: from when on an open one may be probed.
    """

    def __init__(self, policy: BreakerPolicy, chance: Callable[[], float]) -> None:
        """Make a closed breaker; `chance` gives numbers in [0, 1), by which pauses vary."""
        self.state: BreakerState = "closed"
        self.probe_at = 0.0
        self._policy = policy
        self._chance = chance
        self._recent: deque[_Outcome] = deque(maxlen=policy.calls)
        self._pause_s = 0.0
        self._failed_at = float("-inf")
        self._closed_at = float("-inf")

    def begin_probe(self, now: float) -> bool:
        """Return whether the caller may make the one probe; it tells how that ended."""
        if self.state != "open" or now < self.probe_at:
            return False
        self.state = "half-open"
        return True

    def succeeded(self, now: float) -> None:
        """Take note of a call that was answered."""
        if self.state == "closed":
            self._recent.append(_Outcome(now, is_failure=False))
        elif self.state == "half-open":
            self.state = "closed"
            self._closed_at = now

    def failed(self, now: float, *, began_at: float) -> None:
        """Take note of a call that was not answered, or not in time."""
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
        # What fails again soon after it was closed has not recovered.
        has_recovered = self.state == "closed" and now - self._closed_at > policy.window_s
        if has_recovered or not self._pause_s:
            self._pause_s = policy.first_pause_s
        else:
            self._pause_s = min(2 * self._pause_s, policy.longest_pause_s)
        # Shorter by up to half, so that not all processes probe at the same moment.
        self.probe_at = now + self._pause_s * (1 - self._chance() / 2)
        self.state = "open"
        self._recent.clear()
