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
import time
from collections.abc import Mapping

import msgspec

from cacheproxy.admin.reloading import ReadSettings, Reloads
from cacheproxy.errors import CacheproxyError, ConfigError, ModelError, WorkerDied
from cacheproxy.server.link import Ask, Look, Pick, Question, Reload, Scrape, Stop
from cacheproxy.server.listeners import log_ready
from cacheproxy.server.worker_process import WorkerProcess
from cacheproxy.settings.settings import Settings
from cacheproxy.telemetry.history import SAMPLE_EVERY_S, History, read_figures
from cacheproxy.telemetry.logs import set_level
from cacheproxy.telemetry.merged import (
    Family,
    TextFormat,
    lasting,
    merge,
    only,
    render,
    take_snapshot,
)
from cacheproxy.telemetry.supervisor_metrics import SupervisorMetrics

logger = logging.getLogger(__name__)

_COUNT_EVERY_S = 1.0
_COUNT_DEADLINE_S = 0.2
"""If a worker takes longer than this to answer, a scrape uses its previous counts."""

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


def supervise(
    settings: Settings, reserved: Mapping[str, socket.socket], read: ReadSettings
) -> None:
    """Keep `settings.workers` workers serving on the reserved addresses until a signal arrives.

    `read` reads the settings again, for a reload.

    Raises:
        ConfigError: the workers cannot start with these settings.
        ModelError: they have no usable model.
        WorkerDied: one died before all were ready.
    """
    asyncio.run(_Supervisor(settings, reserved, read).run())


class _Supervisor:
    def __init__(
        self, settings: Settings, reserved: Mapping[str, socket.socket], read: ReadSettings
    ) -> None:
        self._settings = settings
        self._reserved = reserved
        self._workers: set[WorkerProcess] = set()
        self._was_ready = False
        self._metrics = SupervisorMetrics()
        self._metrics.workers.set_function(lambda: len(self._ready()))
        self._reloads = Reloads(read, lambda: self._settings, self._take, self._metrics.reload)
        self._ended: list[Family] = []
        self._handing_on: set[asyncio.Task[None]] = set()
        self._collecting = asyncio.Lock()
        self._collected_at = 0.0
        self._collected: list[Family] = []
        self._metrics.busiest.shown = settings.metrics.namespaces
        self._history = History()
        self._numbers = itertools.count(1)
        self._stopping = asyncio.Event()
        self._closes_at = 0.0

    async def run(self) -> None:
        """Keep workers running until a signal arrives; raises the errors of `supervise`."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._on_signal, self._settings.drain_s)
        loop.add_signal_handler(signal.SIGINT, self._on_signal, 0.0)
        loop.add_signal_handler(signal.SIGHUP, self._reloads.on_signal)
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

    def _ready(self) -> list[WorkerProcess]:
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
        worker = await WorkerProcess.start(
            self._settings, self._reserved, warms_up=not self._was_ready
        )
        self._workers.add(worker)
        if self._stopping.is_set():
            worker.stop(Stop(0, at_once=False))
        status = await worker.run(self._on_ready, self._metrics.busiest.add, self._answer)
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

    async def _take(self, settings: Settings) -> None:
        """Have all workers take other settings, or none of them; raises ConfigError."""
        if not self._was_ready:
            raise ConfigError("the workers are still starting")
        workers = self._ready()
        done = await asyncio.gather(
            *(worker.prepare(settings) for worker in workers), return_exceptions=True
        )
        refusals = [error for error in done if isinstance(error, BaseException)]
        for worker in workers:
            worker.take(None if refusals else settings)
        if refusals:
            raise refusals[0]
        self._settings = settings
        set_level(settings.log.level)
        self._metrics.busiest.shown = settings.metrics.namespaces
        for worker in self._ready():
            self._bring_up_to_date(worker)

    def _bring_up_to_date(self, worker: WorkerProcess) -> None:
        """Have a worker that was starting during a reload take what the others have."""
        if worker.settings is not self._settings:
            task = asyncio.create_task(self._hand_on(worker, self._settings))
            self._handing_on.add(task)
            task.add_done_callback(self._handing_on.discard)

    async def _hand_on(self, worker: WorkerProcess, settings: Settings) -> None:
        try:
            await worker.prepare(settings)
        except ConfigError as error:
            logger.error("worker %d cannot take the settings (%s); killing it", worker.pid, error)
            worker.kill()
        else:
            worker.take(settings)

    def _on_ready(self, worker: WorkerProcess) -> None:
        self._bring_up_to_date(worker)
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
            case Reload():
                return msgspec.json.encode(await self._reloads.reload(question.actor))
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
                return await self._exposition(question.text_format)

    async def _exposition(self, text_format: TextFormat) -> bytes:
        """Return the metrics of all workers, no older than this call."""
        asked_at = time.monotonic()
        async with self._collecting:
            if self._collected_at <= asked_at:
                self._collected_at = time.monotonic()
                await self._count()
                self._collected = self._families()
            return render(self._collected, text_format)

    def _families(self) -> list[Family]:
        own = take_snapshot(self._metrics.registry, self._metrics.merges)
        return merge([*(worker.counted for worker in self._workers), self._ended, own])


def _reason(worker: WorkerProcess, status: int) -> CacheproxyError:
    if worker.failure is None:
        return WorkerDied(f"worker {worker.pid} ended ({_tell(status)})")
    if worker.failure.because_of == "model":
        return ModelError(worker.failure.message)
    return ConfigError(worker.failure.message)


def _tell(status: int) -> str:
    return f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit code {status}"


def _in(seconds: float) -> str:
    return f"in {seconds:g} s" if seconds else "now"
