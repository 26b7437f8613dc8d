"""Turns on the event loop: what connections send beyond a moment's work waits, tenants in turn.

An event loop goes through all that has arrived before it looks again, so a tenant that floods it on
many connections makes each of its rounds long. Every step of everybody's requests waits for a
round: beside 64 connections with 8 hits each in flight, a round took 35 ms, and a miss, which makes
five steps, 150. So a round does about a millisecond of such work. What is left waits for the next
ones, where whoever has had the least of that time is first (`turns`).
"""

import asyncio
import time
from collections.abc import Callable

from cacheproxy.fairness.turns import Turns

_ROUND_S = 1e-3
"""Work in a round of the event loop: some thirty hits in the hot tier."""

_TASK_S = 1e-4
"""Reckoned for a task that is started, which itself comes later: the least that one takes."""


class LoopTurns:
    """Divides one event loop's time for what arrives on its connections."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        """Prepare; `clock` measures work, in seconds."""
        self._clock = clock
        self._waiting = Turns[Callable[[], None]]()
        self._spent_s = 0.0  # in this round
        self._ended_at = 0.0
        self._is_asked = False

    def do(self, work: Callable[[bytes], None], data: bytes) -> bool:
        """Call `work` with what has arrived, if this round has time for it; else return False."""
        began = self._clock()
        if began - self._ended_at > _ROUND_S:  # no round goes on for so long without work
            self._spent_s = 0.0
        if self._spent_s >= _ROUND_S or self._waiting:
            return False
        work(data)
        self._ended_at = ended = self._clock()
        self.spend(ended - began)
        return True

    def start(self, task: Callable[[], None]) -> bool:
        """Start a task, if this round has time for it; else return False."""
        if self._spent_s >= _ROUND_S or self._waiting:
            return False
        self.spend(_TASK_S)
        task()
        return True

    def spend(self, seconds: float) -> None:
        """Take time of this round."""
        self._spent_s += seconds
        if self._spent_s > _ROUND_S / 2:
            self._ask()  # only now: to be told of each round would cost more than short ones

    def wait(self, owner: str, go_on: Callable[[], None]) -> None:
        """Have `go_on` called in a later round, in its owner's turn."""
        self._waiting.put(owner, go_on)
        self._ask()

    def wait_for_task(self, owner: str, start: Callable[[], None]) -> None:
        """Have a task started in a later round, in its owner's turn."""

        def go_on() -> None:
            self._spent_s += _TASK_S
            start()

        self.wait(owner, go_on)

    def _ask(self) -> None:
        """Have the next round told."""
        if not self._is_asked:
            self._is_asked = True
            asyncio.get_running_loop().call_soon(self._begin)

    def _begin(self) -> None:
        """Begin a round with what waits."""
        self._is_asked = False
        self._spent_s = 0.0
        try:
            while self._waiting and self._spent_s < _ROUND_S:
                owner, go_on = self._waiting.pop()
                before_s, began = self._spent_s, self._clock()
                go_on()
                self._ended_at = ended = self._clock()
                self._spent_s += ended - began
                self._waiting.charge(owner, self._spent_s - before_s)
        finally:
            if self._waiting:  # one that fails keeps nobody else from its turn
                self._ask()
