"""Shares the interpreter lock (GIL) between a saturated event loop and its worker threads."""

import asyncio
import time
from weakref import WeakKeyDictionary

_YIELD_EVERY_S = 1e-3  # uvloop rounds shorter timers down to 0
_YIELD_S = 50e-6

_LOOK_EVERY_S = 4e-3
"""Interval between checks of a loop that is idle now and then: checks each millisecond took a
twentieth of the loop's time beside inference (sampled)."""

_SATURATED = 0.8
"""Share of busy time from which on the loop must be made to release the GIL."""


class GilYield:
    """Lets other threads take the GIL periodically while the event loop waits for their work.

    A saturated loop releases the GIL in each poll, but takes it back before a waiting thread has
    woken. Each wake-up restarts that thread's 5 ms timeout (CPython's `take_gil`), so it never gets
    to request the GIL. A lookup of one key, which needs the GIL six times, then took 4 s; with a
    nap of the loop every 0.5 ms it takes 1.2 ms (measured). A loop that is idle now and then is not
    interrupted: unneeded naps took more than half of its time.
    """

    def __init__(self) -> None:
        self._jobs = 0
        self._timer: asyncio.TimerHandle | None = None
        self._seen_at = self._seen_cpu = 0.0

    @classmethod
    def of_running_loop(cls) -> "GilYield":
        """Return this event loop's instance: one timer serves all jobs."""
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
        # A finished job's timer serves the next job: most jobs are shorter than one interval.
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
