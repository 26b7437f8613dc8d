"""Sends one process's share of a phase, and keeps a row for every exchange.

Open loop: a timer fires for each arrival, however many requests are in flight. It is the system's
interval timer, because event loops round to milliseconds. Closed loop: as many requests are in
flight as there are clients that do not think. Sessions: the next turn joins the schedule when the
one before was answered.
"""

import asyncio
import gc
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from heapq import heappop, heappush
from itertools import cycle

from ..traffic.plan import StreamPlan
from ..traffic.scenario import KINDS
from ..traffic.target import Target
from .connection import Client, Exchange
from .samples import pack_sample

_MOST_CONNECTIONS = 900
"""Of one process: together with its files below the 1,024 descriptors that most systems allow."""

_FIRST_CONNECTIONS = 64
_LOOK_S = 0.25
_STREAM_END = b"[DONE]"
_REPEAT = KINDS.index("repeat")


class Generator:
    """Sends share number `part` of `parts` of the streams of a phase."""

    def __init__(
        self,
        target: Target,
        plans: Sequence[StreamPlan],
        *,
        seconds: float,
        timeout_s: float,
        part: int = 0,
        parts: int = 1,
    ) -> None:
        self._plans = plans
        self._seconds = seconds
        self._timeout_s = timeout_s
        self._client = Client(target, self._answered, most_connections=_MOST_CONNECTIONS)
        # Sorted, and so a heap, which later turns and clients that think join.
        self._schedule = sorted(
            (float(moment), stream, index * plan.turns)
            for stream, plan in enumerate(plans)
            if plan.times is not None
            for index, moment in enumerate(plan.times)
            if index % parts == part
        )
        self._clients = [len(range(part, plan.clients, parts)) for plan in plans]
        self._next = [_share(plan, part, parts) for plan in plans]
        self._start = 0.0
        self._in_flight = 0
        self._sent = 0
        self._rows = bytearray()
        self._over = asyncio.Event()

    async def open(self) -> None:
        """Open connections beforehand; raises `OSError` if the server cannot be reached."""
        await self._client.open(max(_FIRST_CONNECTIONS, sum(self._clients)))

    async def run(self, start: float, on_progress: Callable[[int, int], None]) -> bytes:
        """Send everything, starting at `start` (of `time.perf_counter`); return the rows.

        `on_progress` gets the numbers of requests sent and answered.
        """
        loop = asyncio.get_running_loop()
        self._start = start
        await asyncio.sleep(max(start - time.perf_counter(), 0))
        loop.add_signal_handler(signal.SIGALRM, self._ring)
        watching = loop.create_task(self._watch(on_progress))
        for stream, clients in enumerate(self._clients):
            for _ in range(clients):
                self._send_next(stream)
        self._ring()
        gc.freeze()  # the plans are many objects that stay alive
        await self._over.wait()
        gc.unfreeze()
        loop.remove_signal_handler(signal.SIGALRM)
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
        self._client.close()
        return bytes(self._rows)

    def _ring(self) -> None:
        """Send what is due, and set the timer for the next arrival."""
        while self._schedule:
            moment, stream, index = self._schedule[0]
            due = self._start + moment
            wait_s = due - time.perf_counter()
            if wait_s > 0:
                signal.setitimer(signal.ITIMER_REAL, wait_s)
                return
            heappop(self._schedule)
            self._send(stream, index, due)
        self._end_if_over()

    def _send_next(self, stream: int) -> None:
        index = next(self._next[stream], None)
        if index is not None:
            self._think(stream, index)

    def _think(self, stream: int, index: int) -> None:
        """Send a request after its pause, unless the phase is over by then."""
        pauses_s = self._plans[stream].pauses_s
        now = time.perf_counter()
        moment = now - self._start + (0.0 if pauses_s is None else float(pauses_s[index]))
        if moment >= self._seconds:
            return
        if pauses_s is None:
            self._send(stream, index, now)
        else:
            heappush(self._schedule, (moment, stream, index))
            self._ring()

    def _send(self, stream: int, index: int, due: float) -> None:
        self._in_flight += 1
        self._sent += 1
        self._client.send(Exchange(stream, index, due, self._plans[stream].requests[index]))

    def _answered(self, exchange: Exchange) -> None:
        plan = self._plans[exchange.stream]
        self._rows += pack_sample(
            exchange,
            start=self._start,
            now=time.perf_counter(),
            texts=plan.texts,
            whole=not plan.streamed or _STREAM_END in exchange.tail,
        )
        self._in_flight -= 1
        is_last = (exchange.index + 1) % plan.turns == 0 or exchange.status != 200
        if not is_last:
            self._think(exchange.stream, exchange.index + 1)
        elif plan.clients:
            self._send_next(exchange.stream)
        self._end_if_over()

    def _end_if_over(self) -> None:
        if not self._in_flight and not self._schedule:
            self._over.set()

    async def _watch(self, on_progress: Callable[[int, int], None]) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            on_progress(self._sent, self._sent - self._in_flight)
            self._client.give_up(time.perf_counter() - self._timeout_s)


def _share(plan: StreamPlan, part: int, parts: int) -> Iterator[int]:
    """Yield the indices of the requests that the closed-loop clients of this process send."""
    share = range(part * plan.turns, len(plan.requests), parts * plan.turns)
    # Known texts can be asked for again and again; unseen ones only once.
    return cycle(share) if set(plan.kinds) == {_REPEAT} else iter(share)
