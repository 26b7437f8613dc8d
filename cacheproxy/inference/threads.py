"""The threads that infer, for all models of a process, and the lock over their queues.

Each thread takes its next group itself, so that a busy event loop leaves no core idle. A group that
finds the other threads idle and nothing waiting is marked as alone: it may take all cores
(`spread`). Models share the threads by tokens (`shares`). If all threads run groups of other models
when a model's turn comes, it gets one thread more: its group need not wait for the end of a long
one, and the kernel divides the cores. The threads beyond the configured number are idle at all
other times. Measured with 50 questions a second for a small model beside a flood on a large one, 2
cores: p50 6.0 to 7.7 ms and p99 28 ms, and without such a thread 9.1 and 45 ms.
"""

import threading
import time
from typing import Protocol

from cacheproxy.concurrency.time_slices import step_back
from cacheproxy.inference.queue import Taken
from cacheproxy.inference.shares import Shares


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

    def run(self, taken: Taken) -> None:
        """Infer a group, without the lock, and hand over what became of it."""


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
        self._running: list[int] = []

    def add(self, lane: Lane) -> None:
        """Serve a lane, too; before the start."""
        self._lanes.append(lane)
        self._running.append(0)

    def start(self) -> None:
        """Start the threads."""
        for number in range(self.count + len(self._lanes) - 1):
            name = f"inference-{number}"
            self._threads.append(threading.Thread(target=self._work, name=name, daemon=True))
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Finish the queued texts that are still wanted, then end the threads; this blocks."""
        with self.lock:
            self.is_stopping = True
            self.lock.notify_all()
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
        if sum(self._running) < self.count:
            self.lock.notify(texts)
        elif not own:
            self.lock.notify()

    def _work(self) -> None:
        step_back()
        last: int | None = None
        while (found := self._take(last)) is not None:
            last, taken = found
            self._lanes[last].run(taken)

    def _take(self, last: int | None) -> tuple[int, Taken] | None:
        """Wait for the next group; return it and its lane's number, or None at the end.

        `last` is the lane whose group this thread has just run.
        """
        with self.lock:
            if last is not None:
                self._running[last] -= 1
            while (number := self._next()) is None:
                if self.is_stopping and not any(map(len, self._lanes)):
                    self.lock.notify_all()
                    return None
                self.lock.wait()
            self._running[number] += 1
            taken = self._lanes[number].take(time.monotonic())
            taken.is_alone = sum(self._running) == 1 and not any(map(len, self._lanes))
            self._shares.charge(number, sum(len(text.ids) for text in taken.group))
            return number, taken

    def _next(self) -> int | None:
        """Return the number of the lane whose turn it is, or None if no group may run now."""
        is_free = sum(self._running) < self.count
        waiting = []
        for number, lane in enumerate(self._lanes):
            if len(lane):
                waiting.append(number)
            elif is_free:
                lane.ran_empty()
        if not waiting:
            return None
        number = self._shares.next(waiting)
        return number if is_free or not self._running[number] else None
