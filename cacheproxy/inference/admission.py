"""Whether a request may join the queue for inference. Pure: no clock, no I/O.

A burst may wait for up to `max_wait_s`. Once a request has been refused for exceeding that limit,
the queue is no longer a burst: until a thread runs idle, a request may wait for a small multiple of
its own work only. Refusals cost no throughput then, because the threads stay busy, and accepted
requests are answered nearly as fast as on a server that is not overloaded. (Without this history,
such a low limit would refuse clients that only wait for each other: 64 of them make a queue of 64.)
Each owner has a history of its own: one that floods the queue takes no patience from another.
"""

import math
from collections.abc import Callable

_SLOWDOWN = 8
"""During overload a request may wait for this multiple of its own work: bulk work can wait."""


class Admission:
    """The state of one queue; its owner serialises all calls."""

    def __init__(self, max_wait_s: float) -> None:
        self._max_wait_s = max_wait_s
        self._overloaded: set[str] = set()

    @property
    def is_overloaded(self) -> bool:
        """Whether any owner's part of the queue has not run empty since a request was refused."""
        return bool(self._overloaded)

    def refuse(self, wait_s: float, work_s: float, owner: str = "") -> int | None:
        """Return None to admit a request, or the seconds after which it may retry.

        `wait_s` is how long it would wait for other requests, `work_s` its own work on all threads.
        """
        patience_s = 0.0 if owner in self._overloaded else self._max_wait_s
        excess_s = wait_s - patience_s - _SLOWDOWN * work_s
        if excess_s <= 0:
            return None
        self._overloaded.add(owner)
        return max(1, math.ceil(excess_s))

    def settle(self, is_waiting: Callable[[str], bool]) -> None:
        """Take note, when a thread asks for work, whose texts still wait."""
        if self._overloaded:
            self._overloaded = {owner for owner in self._overloaded if is_waiting(owner)}
