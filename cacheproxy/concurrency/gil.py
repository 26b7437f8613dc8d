"""Sharing the interpreter lock between an event loop that never rests and the threads it feeds."""

import asyncio
import time
from weakref import WeakKeyDictionary

_YIELD_EVERY_S = 1e-3  # the finest that uvloop knows: it takes less for at once
_YIELD_S = 50e-6

_LOOK_EVERY_S = 4e-3
"""From one look at a loop that rests of itself to the next: looks at each millisecond were a
twentieth of what the loop did beside inference (sampled)."""

_SATURATED = 0.8
"""Share of the time that the loop computes, from which on it has to be made to rest."""


class GilYield:
    """Lets other threads have the GIL now and then while the event loop waits for their work.

    A saturated loop gives up the GIL in each poll, but takes it back before a thread that waits
    for it has woken; and as each wake-up restarts that thread's 5 ms of patience (CPython's
    `take_gil`), it never gets to demand it. A lookup of one key, six turns of the GIL, then took
    4 s; with a nap of the loop every 0.5 ms it takes 1.2 ms (measured). A loop that waits now and
    then of itself is left alone: naps that nobody needs took more than half of its time.
    """

    def __init__(self) -> None:
        self._jobs = 0
        self._timer: asyncio.TimerHandle | None = None
        self._seen_at = self._seen_cpu = 0.0

    @classmethod
    def of_running_loop(cls) -> "GilYield":
        """Return the one of this event loop, whoever has jobs: one timer serves them all."""
        loop = asyncio.get_running_loop()
        found = _of_loops.get(loop)
        if found is None:
            found = _of_loops[loop] = cls()
        return found

    def begin_job(self) -> None:
        """Yield from now on, until as many jobs have ended as have begun."""
        self._jobs += 1
        if self._timer is None:
            self._look_again(_YIELD_EVERY_S)

    def end_job(self) -> None:
        """Stop yielding if this was the last job."""
        self._jobs -= 1

    def _look_again(self, pause_s: float) -> None:
        self._seen_at, self._seen_cpu = time.perf_counter(), time.thread_time()
        self._timer = asyncio.get_running_loop().call_later(pause_s, self._look)

    def _look(self) -> None:
        # The timer of a job that has ended serves the next: most take less than a look.
        self._timer = None
        if not self._jobs:
            return
        busy_s = time.thread_time() - self._seen_cpu
        if busy_s > _SATURATED * (time.perf_counter() - self._seen_at):
            time.sleep(_YIELD_S)
            self._look_again(_YIELD_EVERY_S)
        else:
            self._look_again(_LOOK_EVERY_S)


_of_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, GilYield] = WeakKeyDictionary()
