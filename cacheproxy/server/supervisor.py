"""The parent of several workers: it starts, replaces and stops them, and sums their metrics.

It serves nothing itself and has neither model nor store. Workers are separate processes, each with
its own socket on the one port, which stays reserved here. A worker that is asked for `/metrics`
asks the supervisor, which collects the counts of all workers. It keeps the counts of workers that
have exited, so that no counter ever decreases; if a worker is killed, its last `_COUNT_EVERY_S` may
be missing.

Until all workers are ready for the first time, the exit of one stops all, so that configuration
errors are reported at once. Afterwards a worker that exits or cannot start is replaced, as often as
needed, while the others serve.
"""

import asyncio
import itertools
import logging
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack

import msgspec

from cacheproxy.errors import CacheproxyError, ConfigError, ModelError, WorkerDied
from cacheproxy.server.link import (
    Answered,
    Ask,
    Channel,
    Count,
    Counted,
    Failed,
    Job,
    Look,
    Pick,
    Question,
    Ready,
    Scrape,
    Stop,
    Told,
)
from cacheproxy.server.listeners import join, log_ready
from cacheproxy.settings.settings import Settings
from cacheproxy.telemetry.history import SAMPLE_EVERY_S, History, read_figures
from cacheproxy.telemetry.merged import Family, lasting, merge, only, render, take_snapshot
from cacheproxy.telemetry.supervisor_metrics import SupervisorMetrics

logger = logging.getLogger(__name__)

_COUNT_EVERY_S = 1.0
_COUNT_DEADLINE_S = 0.2
"""If a worker takes longer than this to answer, a scrape uses its previous counts."""

_ANSWER_DEADLINE_S = 1.0
"""If a worker takes longer than this to answer an operator's question, it is left out."""

_HUNG_ROUNDS = 8
"""A worker that tells nothing in so many rounds of counting, some 9 s, is killed and replaced. In
rounds, not seconds: when the supervisor itself was stopped, nobody could answer."""

_DIED_SOON_S = 10.0
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0

_END_S = 60.0
"""Workers still running this long after their sockets closed are killed. It exceeds the 30 s that
they allow for requests plus the 10 s for write-backs."""


def next_pause_s(last_pause_s: float, lived_s: float) -> float:
    """Return the delay before a worker that lived this long is replaced, seconds."""
    if lived_s >= _DIED_SOON_S:
        return 0.0
    return min(max(2 * last_pause_s, _FIRST_PAUSE_S), _LONGEST_PAUSE_S)


def supervise(settings: Settings, reserved: Mapping[str, socket.socket]) -> None:
    """Keep `settings.workers` workers serving on the reserved addresses until a signal arrives.

    Raises:
        ConfigError: the workers cannot start with these settings.
        ModelError: they have no usable model.
        WorkerDied: one died before all were ready.
    """
    asyncio.run(_Supervisor(settings, reserved).run())


class _Worker:
    """A worker process.

    Attributes:
        is_ready: whether it accepts connections.
        failure: its reason for not starting, if it reported one.
        counted: its most recent counts.
        silent_rounds: how often in a row it was asked for them and told nothing.
    """

    def __init__(self, process: asyncio.subprocess.Process, channel: Channel) -> None:
        self._process = process
        self._channel = channel
        self._asked = 0
        self._fresh: asyncio.Future[None] | None = None
        self._answers: set[asyncio.Task[None]] = set()
        self._asked_for: dict[int, asyncio.Future[bytes]] = {}
        self.is_ready = False
        self.failure: Failed | None = None
        self.counted: list[Family] = []
        self.silent_rounds = 0

    @classmethod
    async def start(cls, settings: Settings, reserved: Mapping[str, socket.socket]) -> "_Worker":
        """Start a process that will serve on sockets of its own on the reserved addresses.

        Raises:
            OSError: the system has no more of something.
        """
        ours, theirs = socket.socketpair()
        with (
            ExitStack() as passed_on
        ):  # owned by the worker alone: they close whenever and however it exits
            passed_on.enter_context(theirs)
            descriptors = {
                name: passed_on.enter_context(join(address)).fileno()
                for name, address in reserved.items()
            }
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "cacheproxy.server.worker", str(theirs.fileno())),
                pass_fds=(theirs.fileno(), *descriptors.values()),
                process_group=0,  # the supervisor forwards an interrupt from the terminal
            )
        channel = await Channel.open(ours)
        channel.send_job(Job(settings, descriptors))
        return cls(process, channel)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def run(
        self,
        on_ready: Callable[["_Worker"], None],
        answer: Callable[[Question], Awaitable[bytes]],
    ) -> int:
        """Receive its messages until it exits; return its exit status, negative for a signal."""
        async for message in self._channel.messages():
            self.silent_rounds = 0
            match message:
                case Ready():
                    self.is_ready = True
                    on_ready(self)
                case Failed():
                    self.failure = message
                case Counted():
                    self._keep_counted(message)
                case Answered():
                    waiting = self._asked_for.get(message.number)
                    if waiting is not None and not waiting.done():
                        waiting.set_result(message.answer)
                case Scrape() | Look() | Pick() | Ask():
                    telling = asyncio.create_task(self._tell(message, answer))
                    self._answers.add(telling)
                    telling.add_done_callback(self._answers.discard)
        self.is_ready = False
        await self._channel.close()
        return await self._process.wait()

    def stop(self, order: Stop) -> None:
        """Ask it to stop."""
        self._channel.send(order)

    def kill(self) -> None:
        """End it."""
        if self._process.returncode is None:
            self._process.kill()

    async def count(self) -> None:
        """Update `counted` to a state no older than this call."""
        self._asked += 1
        self._fresh = asyncio.get_running_loop().create_future()
        if not self._channel.is_backed_up:
            self._channel.send(Count(self._asked))
        await self._fresh

    async def ask(self, question: Ask) -> bytes | None:
        """Return its answer; None if it does not answer in time."""
        answer = self._asked_for[question.number] = asyncio.get_running_loop().create_future()
        self._channel.send(question)
        try:
            return await asyncio.wait_for(answer, _ANSWER_DEADLINE_S)
        except TimeoutError:
            return None
        finally:
            del self._asked_for[question.number]

    def _keep_counted(self, message: Counted) -> None:
        self.counted = message.families
        if message.number == self._asked and self._fresh is not None and not self._fresh.done():
            self._fresh.set_result(None)

    async def _tell(
        self, question: Question, answer: Callable[[Question], Awaitable[bytes]]
    ) -> None:
        self._channel.send(Told(question.number, await answer(question)))


class _Supervisor:
    def __init__(self, settings: Settings, reserved: Mapping[str, socket.socket]) -> None:
        self._settings = settings
        self._reserved = reserved
        self._workers: set[_Worker] = set()
        self._was_ready = False
        self._metrics = SupervisorMetrics()
        self._metrics.workers.set_function(lambda: len(self._ready()))
        self._ended: list[Family] = []
        self._collecting = asyncio.Lock()
        self._collected_at = 0.0
        self._text = b""
        self._history = History()
        self._numbers = itertools.count(1)
        self._stopping = asyncio.Event()
        self._closes_at = 0.0

    async def run(self) -> None:
        """Keep workers running until a signal arrives; raises the errors of `supervise`."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._on_signal, self._settings.drain_s)
        loop.add_signal_handler(signal.SIGINT, self._on_signal, 0.0)
        keepers = [asyncio.create_task(self._keep_one()) for _ in range(self._settings.workers)]
        counting = [asyncio.create_task(self._count_for_ever())]
        if self._settings.admin.port is not None:  # no other task observes it
            counting.append(asyncio.create_task(self._remember_for_ever()))
        await asyncio.wait(keepers, return_when=asyncio.FIRST_EXCEPTION)
        if not self._stopping.is_set():
            self._stop(Stop(0, at_once=False))
        await asyncio.wait(keepers)
        for task in counting:
            task.cancel()
        for error in [keeper.exception() for keeper in keepers]:
            if error is not None:
                raise error
        logger.info("stopped")

    def _ready(self) -> list[_Worker]:
        return [worker for worker in self._workers if worker.is_ready]

    async def _keep_one(self) -> None:
        """Keep one worker running and replace it whenever it exits, until shutdown."""
        pause_s = 0.0
        while not self._stopping.is_set():
            started_at = time.monotonic()
            try:
                ending = await self._run_one()
            except OSError as error:
                ending = WorkerDied(f"no worker can be started: {error.strerror}")
            if self._stopping.is_set():
                break
            if not self._was_ready:
                raise ending
            pause_s = next_pause_s(pause_s, time.monotonic() - started_at)
            logger.warning("%s; another worker starts %s", ending, _in(pause_s))
            self._metrics.worker_restarts.inc()
            await self._pause(pause_s)

    async def _run_one(self) -> CacheproxyError:
        """Run a worker until it exits; return the reason."""
        worker = await _Worker.start(self._settings, self._reserved)
        self._workers.add(worker)
        if self._stopping.is_set():
            worker.stop(Stop(0, at_once=False))
        status = await worker.run(self._on_ready, self._answer)
        self._workers.remove(worker)
        self._ended = merge([self._ended, lasting(worker.counted)])
        if self._stopping.is_set() and status:
            logger.error("worker %d did not stop cleanly (%s)", worker.pid, _tell(status))
        return _reason(worker, status)

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except TimeoutError:
            return

    def _on_ready(self, worker: _Worker) -> None:
        if self._was_ready or self._stopping.is_set():
            logger.info("worker %d is ready", worker.pid)
        elif len(self._ready()) == self._settings.workers:
            self._was_ready = True
            log_ready(self._reserved, self._settings, by=f" ({self._settings.workers} workers)")

    def _on_signal(self, wait_s: float) -> None:
        is_closed = self._stopping.is_set() and time.monotonic() >= self._closes_at
        self._stop(Stop(wait_s, at_once=is_closed))

    def _stop(self, order: Stop) -> None:
        closes_at = time.monotonic() + order.wait_s
        self._closes_at = min(self._closes_at, closes_at) if self._stopping.is_set() else closes_at
        self._stopping.set()
        for worker in self._workers:
            worker.stop(order)
        asyncio.get_running_loop().call_later(order.wait_s + _END_S, self._kill)

    def _kill(self) -> None:
        for worker in self._workers:
            logger.error("worker %d does not stop; killing it", worker.pid)
            worker.kill()

    async def _count_for_ever(self) -> None:
        while True:
            await asyncio.sleep(_COUNT_EVERY_S)
            async with self._collecting:
                for worker in self._ready():
                    worker.silent_rounds += 1
                await self._count()
            self._kill_hung()

    def _kill_hung(self) -> None:
        """End workers whose event loops do not turn; others take their places."""
        for worker in self._ready():
            if worker.silent_rounds >= _HUNG_ROUNDS and not self._stopping.is_set():
                logger.error("worker %d does not answer; killing it", worker.pid)
                worker.kill()

    async def _remember_for_ever(self) -> None:
        while True:
            self._history.add(read_figures(self._families(), time.time()))
            await asyncio.sleep(SAMPLE_EVERY_S)

    async def _count(self) -> None:
        """Request the counts of all workers; those that do not answer in time will do so later."""
        asked = [asyncio.create_task(worker.count()) for worker in self._ready()]
        if asked:
            _, late = await asyncio.wait(asked, timeout=_COUNT_DEADLINE_S)
            for task in late:
                task.cancel()

    async def _answer(self, question: Question) -> bytes:
        match question:
            case Look():
                return self._history.since(question.since)
            case Pick():
                async with self._collecting:
                    await self._count()
                return msgspec.msgpack.encode(only(self._families(), question.names))
            case Ask():
                # Numbered anew: those of several workers may be equal.
                order = Ask(next(self._numbers), question.question)
                answers = await asyncio.gather(*(one.ask(order) for one in self._ready()))
                return msgspec.msgpack.encode([one for one in answers if one is not None])
            case Scrape():
                return await self._exposition()

    async def _exposition(self) -> bytes:
        """Return the metrics of all workers, no older than this call."""
        asked_at = time.monotonic()
        async with self._collecting:
            if self._collected_at <= asked_at:
                self._collected_at = time.monotonic()
                await self._count()
                self._text = render(self._families())
            return self._text

    def _families(self) -> list[Family]:
        own = take_snapshot(self._metrics.registry, self._metrics.merges)
        return merge([*(worker.counted for worker in self._workers), self._ended, own])


def _reason(worker: _Worker, status: int) -> CacheproxyError:
    if worker.failure is None:
        return WorkerDied(f"worker {worker.pid} ended ({_tell(status)})")
    if worker.failure.because_of == "model":
        return ModelError(worker.failure.message)
    return ConfigError(worker.failure.message)


def _tell(status: int) -> str:
    return f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit code {status}"


def _in(seconds: float) -> str:
    return f"in {seconds:g} s" if seconds else "now"
