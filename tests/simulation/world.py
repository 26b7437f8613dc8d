"""Simulated time: one world of event loops, each the loop of one process, run on one thread.

Time passes only when nothing is left to do at this moment. A process can be frozen (nothing of it
runs) and killed (nothing of it ever runs again); its wall clock can be set, its monotonic one not.
"""

import asyncio
import heapq
import sys
from asyncio import events
from collections import deque
from collections.abc import Callable
from itertools import count
from random import Random
from typing import Any

EPOCH_S = 1_700_000_000.0
"""Unix time at which every world begins."""

TICK_S = 2e-6
"""What running one callback takes: time never stands still while something is done."""


class Stuck(Exception):
    """Nothing is left to happen, and what was waited for has not happened."""


class World:
    """All that happens, in one order that the seed alone decides.

    Attributes:
        now: seconds since the world began.
        loop: the process whose callback runs, or None.
        chance: decides what nature does.
        faults: what went wrong in a way that no code of ours may: (kind, message).
    """

    def __init__(self, seed: int) -> None:
        self.now = 0.0
        self.loop: SimLoop | None = None
        self.chance = Random(f"nature {seed}")  # noqa: S311
        self.faults: list[tuple[str, str]] = []
        self.loops: list[SimLoop] = []
        self.mistake: BaseException | None = None  # of the simulation itself
        self.trace: list[str] | None = None
        self.disk_pause_s = 0.0
        self.steps = 0
        self._ready: deque[tuple[SimLoop | None, asyncio.Handle]] = deque()
        self._events: list[tuple[float, int, SimLoop | None, asyncio.Handle]] = []
        self._order = count()
        self._nature = SimLoop(self, "nature")

    def wall(self) -> float:
        """Return Unix time as the running process sees it."""
        return EPOCH_S + self.now + (0.0 if self.loop is None else self.loop.wall_offset_s)

    def monotonic(self) -> float:
        """Return the running process's monotonic time."""
        return self.now + (0.0 if self.loop is None else self.loop.monotonic_offset_s)

    def call_at(self, when: float, call: Callable[..., object], *args: Any) -> None:
        """Let nature do something at a time."""
        handle = asyncio.Handle(call, args, self._nature)
        self.push(when, None, handle)

    def call_in(self, seconds: float, call: Callable[..., object], *args: Any) -> None:
        """Let nature do something after a time."""
        self.call_at(self.now + seconds, call, *args)

    def push(self, when: float, loop: "SimLoop | None", handle: asyncio.Handle) -> None:
        """Run a handle at a time."""
        heapq.heappush(self._events, (when, next(self._order), loop, handle))

    def run_soon(self, loop: "SimLoop | None", handle: asyncio.Handle) -> None:
        """Run a handle once all that is ready has run."""
        self._ready.append((loop, handle))

    def run(self, is_done: Callable[[], bool], *, most_steps: int = 200_000) -> None:
        """Let things happen until something is done.

        Raises:
            Stuck: it will never be.
        """
        ready, heap = self._ready, self._events
        before = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(finalizer=_close_generator)
        try:
            while not is_done():
                if not ready:
                    if not heap:
                        raise Stuck("nothing is left to happen")
                    when, _, loop, handle = heapq.heappop(heap)
                    self.now = max(self.now, when)
                else:
                    loop, handle = ready.popleft()
                if handle._cancelled:
                    continue
                if loop is not None:
                    if loop.is_dead:
                        continue
                    if loop.frozen_until > self.now:
                        loop.backlog.append(handle)
                        continue
                self.steps += 1
                if self.steps > most_steps:
                    raise Stuck("it goes on for ever")
                self.now += TICK_S
                if loop is not self.loop:
                    self.loop = loop
                    events._set_running_loop(loop)
                handle._run()
                if self.mistake is not None:
                    raise self.mistake
        finally:
            self.loop = None
            events._set_running_loop(None)
            sys.set_asyncgen_hooks(*before)

    def end(self) -> None:
        """Let nothing happen any more."""
        for loop in self.loops:
            loop.is_dead = True
        self._ready.clear()
        self._events.clear()

    def blame(self, kind: str, message: str) -> None:
        """Take note of something that must not happen."""
        self.faults.append((kind, f"{self.now:9.4f} {message}"))


def _close_generator(generator: Any) -> None:
    loop = events._get_running_loop()
    if loop is not None:
        loop.create_task(generator.aclose())


class SimLoop(asyncio.AbstractEventLoop):
    """The event loop of one process."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.is_dead = False
        self.frozen_until = 0.0
        self.backlog: list[asyncio.Handle] = []
        self.wall_offset_s = 0.0
        self.monotonic_offset_s = world.chance.uniform(0, 1e6)
        self.threads: dict[int, Any] = {}
        # Kept: what the process was doing when it was killed must not end in any way.
        self.tasks: list[asyncio.Task[Any]] = []
        world.loops.append(self)

    def freeze(self, seconds: float) -> None:
        """Let nothing of this process run for a while."""
        self.frozen_until = max(self.frozen_until, self.world.now + seconds)
        self.world.call_at(self.frozen_until, self._thaw)

    def _thaw(self) -> None:
        if self.frozen_until <= self.world.now:
            backlog, self.backlog = self.backlog, []
            for handle in backlog:
                self.world.run_soon(self, handle)

    def kill(self) -> None:
        """Let nothing of this process ever run again."""
        self.is_dead = True

    # What asyncio needs of a loop.

    def time(self) -> float:
        return self.world.now + self.monotonic_offset_s

    def call_soon(self, callback, *args, context=None):
        handle = asyncio.Handle(callback, args, self, context)
        if not self.is_dead:
            self.world.run_soon(self, handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_later(self, delay, callback, *args, context=None):
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(self, when, callback, *args, context=None):
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        if not self.is_dead:
            self.world.push(max(when - self.monotonic_offset_s, self.world.now), self, handle)
        return handle

    def _timer_handle_cancelled(self, handle):
        pass

    def create_future(self):
        return asyncio.Future(loop=self)

    def create_task(self, coro, *, name=None, context=None):
        task = asyncio.Task(coro, loop=self, name=name, context=context)
        self.tasks.append(task)
        return task

    def get_debug(self):
        return False

    def is_running(self):
        return True

    def is_closed(self):
        return self.is_dead

    def call_exception_handler(self, context):
        if self.name == "nature":
            self.world.mistake = context["exception"]
        elif not self.is_dead and self.world.loop is not None:
            error = context.get("exception")
            self.world.blame("unexpected", f"{self.name}: {context['message']}: {error!r}")
