"""Simulated time: one world of event loops, each the loop of one process, run on one thread.

Time passes only when nothing is left to do at this moment. A process can be frozen (nothing of it
runs) and killed (nothing of it ever runs again); its wall clock can be set, its monotonic one not.
"""

import asyncio
import sys
from asyncio import events
from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from heapq import heappop, heappush
from itertools import count
from random import Random
from typing import Any

EPOCH_S = 1_700_000_000.0
"""Unix time at which every world begins."""

TICK_S = 2e-6
"""What running one callback takes: time never stands still while something is done."""

_TASKS = 16
"""After so many more tasks those that are done are let go: no collector then looks through them."""


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
        self.trace: list[str] | None = None
        self.disk_pause_s = 0.0
        self.steps = 0
        self.ready: deque[tuple[SimLoop | None, Turn]] = deque()
        self._events: list[tuple[float, int, SimLoop | None, Turn]] = []
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
        heappush(self._events, (when, next(self._order), None, Turn(call, args, copy_context())))

    def call_in(self, seconds: float, call: Callable[..., object], *args: Any) -> None:
        """Let nature do something after a time."""
        self.call_at(self.now + seconds, call, *args)

    def push(self, when: float, loop: "SimLoop", turn: "Turn") -> None:
        """Let a process have a turn at a time."""
        heappush(self._events, (when, next(self._order), loop, turn))

    def run(self, is_done: Callable[[], object], *, most_steps: int = 200_000) -> None:
        """Let things happen until something is done.

        Raises:
            Stuck: it will never be.
        """
        ready, heap = self.ready, self._events
        before = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(finalizer=_close_generator)
        try:
            while not is_done():
                if ready:
                    loop, turn = ready.popleft()
                elif heap:
                    when, _, loop, turn = heappop(heap)
                    if when > self.now:
                        self.now = when
                else:
                    raise Stuck("nothing is left to happen")
                if turn.is_cancelled:
                    continue
                if loop is not None:
                    if loop.is_dead:
                        continue
                    if loop.frozen_until > self.now:
                        loop.backlog.append(turn)
                        continue
                self.steps += 1
                if self.steps > most_steps:
                    raise Stuck("it goes on for ever")
                self.now += TICK_S
                if loop is not self.loop:
                    self.loop = loop
                    events._set_running_loop(loop)
                try:
                    turn.context.run(turn.call, *turn.args)
                except BaseException as error:
                    if loop is None or isinstance(error, KeyboardInterrupt):
                        raise  # a mistake of the simulation itself
                    self.blame("unexpected", f"{loop.name}: {turn.call!r}: {error!r}")
        finally:
            self.loop = None
            events._set_running_loop(None)
            sys.set_asyncgen_hooks(*before)

    def end(self) -> None:
        """Let nothing happen any more."""
        for loop in self.loops:
            loop.is_dead = True
        self.ready.clear()
        self._events.clear()

    def blame(self, kind: str, message: str) -> None:
        """Take note of something that must not happen."""
        self.faults.append((kind, f"{self.now:9.4f} {message}"))


def _close_generator(generator: Any) -> None:
    loop = events._get_running_loop()
    if loop is not None:
        loop.create_task(generator.aclose())


class Turn:
    """One callback that will be run; what asyncio calls a handle, without what is not needed."""

    __slots__ = ("args", "call", "context", "is_cancelled")

    def __init__(
        self, call: Callable[..., object], args: tuple[Any, ...], context: Context
    ) -> None:
        self.call, self.args, self.context = call, args, context
        self.is_cancelled = False

    def cancel(self) -> None:
        """Do not run it."""
        self.is_cancelled = True
        self.args = ()

    def cancelled(self) -> bool:
        """Return whether it will not be run."""
        return self.is_cancelled


class SimLoop(asyncio.AbstractEventLoop):
    """The event loop of one process."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.is_dead = False
        self.frozen_until = 0.0
        self.backlog: list[Turn] = []
        self.wall_offset_s = 0.0
        self.monotonic_offset_s = world.chance.uniform(0, 1e6)
        self.threads: dict[int, Any] = {}
        # Kept: what the process was doing when it was killed must not end in any way.
        self.tasks: list[asyncio.Task[Any]] = []
        self._tidy_at = _TASKS
        world.loops.append(self)

    def freeze(self, seconds: float) -> None:
        """Let nothing of this process run for a while."""
        self.frozen_until = max(self.frozen_until, self.world.now + seconds)
        self.world.call_at(self.frozen_until, self._thaw)

    def _thaw(self) -> None:
        if self.frozen_until <= self.world.now:
            backlog, self.backlog = self.backlog, []
            self.world.ready.extend((self, turn) for turn in backlog)

    def kill(self) -> None:
        """Let nothing of this process ever run again."""
        self.is_dead = True

    # What asyncio needs of a loop.

    def time(self) -> float:
        return self.world.now + self.monotonic_offset_s

    def call_soon(self, callback, *args, context=None):
        turn = Turn(callback, args, copy_context() if context is None else context)
        if not self.is_dead:
            self.world.ready.append((self, turn))
        return turn

    call_soon_threadsafe = call_soon

    def call_later(self, delay, callback, *args, context=None):
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(self, when, callback, *args, context=None):
        turn = Turn(callback, args, copy_context() if context is None else context)
        if not self.is_dead:
            now = self.world.now
            when -= self.monotonic_offset_s
            self.world.push(when if when > now else now, self, turn)
        return turn

    def create_future(self):
        return asyncio.Future(loop=self)

    def create_task(self, coro, *, name=None, context=None):
        task = asyncio.Task(coro, loop=self, name=name, context=context)
        self.tasks.append(task)
        if len(self.tasks) == self._tidy_at:
            self.tasks = [one for one in self.tasks if not one.done()]
            self._tidy_at = len(self.tasks) + _TASKS
        return task

    get_debug = bool  # False; each future asks, so it must not cost a call of Python code

    def is_running(self):
        return True

    def is_closed(self):
        return self.is_dead

    def call_exception_handler(self, context):
        if not self.is_dead and self.world.loop is not None:
            error = context.get("exception")
            self.world.blame("unexpected", f"{self.name}: {context['message']}: {error!r}")
