"""Whether a request may join the queue for inference. Pure: no clock, no I/O.

A burst may wait for up to `max_wait_s`. Once a request has been refused for that the queue is not a
burst's: until a thread finds nothing to do, a request may wait for a few times its own work only.
Refusing what comes then costs nothing, as the threads are busy all the same, and what is accepted
is answered nearly as fast as by a server that is not overloaded. (A limit that low without the
history would refuse clients that only wait for each other: 64 of them make a queue of 64.)
"""

import math

_SLOWDOWN = 8
"""A request may wait for so many times its own work: bulk work is patient."""


class Admission:
    """The state of one queue; its owner serialises all calls.

    Attributes:
        is_overloaded: whether the queue has not run empty since a request was refused.
    """

    def __init__(self, max_wait_s: float) -> None:
        self._max_wait_s = max_wait_s
        self.is_overloaded = False

    def refuse(self, wait_s: float, work_s: float) -> int | None:
        """Return None to admit a request, or the seconds after which it may try again.

        `wait_s` is what it would wait for others, `work_s` its own work on all threads.
        """
        patience_s = 0.0 if self.is_overloaded else self._max_wait_s
        excess_s = wait_s - patience_s - _SLOWDOWN * work_s
        if excess_s <= 0:
            return None
        self.is_overloaded = True
        return max(1, math.ceil(excess_s))

    def ran_empty(self) -> None:
        """Take that a thread found nothing to do."""
        self.is_overloaded = False
