"""The threads that infer, for all models of a process, and the lock over their queues.

Each thread takes its next group itself, so that a busy event loop leaves no core idle. A group that
finds the other threads idle and nothing waiting is marked as alone: it may take all cores
(`spread`). Models share the threads by tokens (`shares`). If all threads run groups of other models
when a model's turn comes, an express thread runs its group: that need not wait for the end of a
long one. Express threads are idle at all other times, and do not step back as the others do: beside
a flood on a large model, 2 cores without VNNI, a small model's texts began after 0.3 ms (p50; p90
6.6) and not after 1.1 (10.2), and had their vectors after 4.4 ms and not after 7.4.
"""

import threading
import time
from collections.abc import Callable
from typing import Protocol

from cacheproxy.concurrency.time_slices import be_swift, step_back
from cacheproxy.inference.queue import Taken
from cacheproxy.inference.shares import Shares

_Take = Callable[[], tuple[int, Taken] | None]
"""Waits for the next group, as `InferenceThreads._take`."""

HandOver = Callable[[], None]
"""Hands the outcomes of a group over to those who wait for them."""


class Lane(Protocol):
    """One model's queue; all methods but `run` are called under the threads' lock."""

    def __len__(self) -> int:
        """Return how many texts wait."""

    def take(self, now: float) -> Taken:
        """Remove and return the next group, at monotonic time `now`."""

    def ran_empty(self) -> None:
        """Learn that a thread looked for work here and found none."""

    def busy_s(self, tokens: float) -> float:
        """Return how long all threads need for the texts that wait, at most this many tokens."""

    def share(self, now: float) -> None:
        """Learn that another model has work, too."""

    def run(self, taken: Taken) -> HandOver:
        """Infer a group, without the lock."""


class InferenceThreads:
    """Threads that run the groups of several models.

    Attributes:
        lock: held while a lane's queue is used.
        count: how many groups run at a time, but for what a waiting model gets beyond.
        is_stopping: whether no more texts may be put.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.lock = threading.Condition()
        self.is_stopping = False
        self._lanes: list[Lane] = []
        self._shares = Shares()
        self._threads: list[threading.Thread] = []
        self._express = threading.Condition(self.lock)  # type: ignore[arg-type]
        self._busy = 0  # threads that run a group, express ones not counted
        self._running: list[int] = []

    def add(self, lane: Lane) -> None:
        """Serve a lane, too; before the start."""
        self._lanes.append(lane)
        self._running.append(0)

    def start(self) -> None:
        """Start the threads."""
        for number in range(self.count):
            self._make(f"inference-{number}", step_back, self._take, counts=1)
        for number in range(len(self._lanes) - 1):
            self._make(f"express-{number}", be_swift, self._take_express, counts=0)
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Finish the queued texts that are still wanted, then end the threads; this blocks."""
        with self.lock:
            self.is_stopping = True
            self._notify_all()
        for thread in self._threads:
            thread.join()

    def has_spare(self) -> bool:
        """Return whether a thread is idle and nothing waits: more work would delay no request."""
        with self.lock:
            return not any(map(len, self._lanes)) and sum(self._running) < self.count

    def others_busy_s(self, lane: Lane, tokens: float) -> float:
        """Return how long other models keep the threads while a lane gets this many tokens."""
        if len(self._lanes) == 1:
            return 0.0
        return sum(other.busy_s(tokens) for other in self._lanes if other is not lane)

    def notify(self, lane: Lane, texts: int, now: float) -> None:
        """Wake threads for texts that a lane got; lanes that have work now share the threads."""
        own = 0
        for other, running in zip(self._lanes, self._running, strict=True):
            if other is lane:
                own = running
            elif running or len(other):
                other.share(now)
                lane.share(now)
        if self._busy < self.count:
            self.lock.notify(texts)
        elif not own:
            self._express.notify()

    def _make(self, name: str, begin: Callable[[], None], take: _Take, *, counts: int) -> None:
        args = begin, take, counts
        self._threads.append(threading.Thread(target=self._work, args=args, name=name, daemon=True))

    def _notify_all(self) -> None:
        self.lock.notify_all()
        self._express.notify_all()

    def _work(self, begin: Callable[[], None], take: _Take, counts: int) -> None:
        begin()
        while (found := take()) is not None:
            number, taken = found
            hand_over = self._lanes[number].run(taken)
            # The thread counts as idle before the outcomes are there: who waited for them may ask
            # again at once, and the next text is alone then. With the order reversed, 8 % of the
            # texts of a client that asks one by one were not, and 40 % on a busy machine.
            with self.lock:
                self._running[number] -= 1
                self._busy -= counts
            hand_over()

    def _take(self) -> tuple[int, Taken] | None:
        """Wait for the next group; return it and its lane's number, or None at the end."""
        with self.lock:
            while not (waiting := self._settle()):
                if self.is_stopping:
                    self._notify_all()
                    return None
                self.lock.wait()
            self._busy += 1
            found = self._taken_from(self._shares.next(waiting))
            if self._next_beyond() is not None:
                self._express.notify()
            return found

    def _take_express(self) -> tuple[int, Taken] | None:
        """Do the same for a lane that has its turn while all other threads run other lanes."""
        with self.lock:
            while (number := self._next_beyond()) is None:
                if self.is_stopping and not self._waiting():
                    self._notify_all()
                    return None
                self._express.wait()
            return self._taken_from(number)

    def _taken_from(self, number: int) -> tuple[int, Taken]:
        self._running[number] += 1
        taken = self._lanes[number].take(time.monotonic())
        taken.is_alone = sum(self._running) == 1 and not self._waiting()
        self._shares.charge(number, sum(len(text.ids) for text in taken.group))
        return number, taken

    def _waiting(self) -> list[int]:
        return [number for number, lane in enumerate(self._lanes) if len(lane)]

    def _settle(self) -> list[int]:
        """Return the lanes that have texts; the others learn that a thread looked there."""
        for lane in self._lanes:
            if not len(lane):
                lane.ran_empty()
        return self._waiting()

    def _next_beyond(self) -> int | None:
        """Return the number of the lane that may run beyond the usual threads, if there is one."""
        if self._busy < self.count or not (waiting := self._waiting()):
            return None
        number = self._shares.next(waiting)
        return None if self._running[number] else number
