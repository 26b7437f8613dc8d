"""Threads that take groups of texts from the queue and run them through the session.

Each thread takes its next group itself, so that a busy event loop leaves no core idle. A group
that fails is halved until the faulty text is isolated: one bad text never fails its batch-mates. A
vector that is not finite or has length zero is an error and is never delivered.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cacheproxy.concurrency.gil import GilYield
from cacheproxy.concurrency.time_slices import step_back
from cacheproxy.errors import ApiError, InferenceFailed, Overloaded, Unavailable
from cacheproxy.inference.admission import Admission
from cacheproxy.inference.queue import Ids, QueuedText, Reservation, Taken, TextQueue, Vector
from cacheproxy.records import is_usable
from cacheproxy.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

Encode = Callable[[NDArray[np.int64]], NDArray[np.float32]]
Outcome = tuple[QueuedText, Vector | ApiError]

_RATE_MEMORY = 0.9
"""Weight of the past in the measured rate: about the last ten groups count."""

_FIRST_RATE = 10_000.0
"""Assumed tokens/s of one thread before the first group: less than on any measured machine."""


class _Run(NamedTuple):
    """One call of the model."""

    texts: int
    tokens: int
    duration_s: float


@dataclass(slots=True)
class _Done:
    """What a thread passes to the event loop, which also does the counting: this avoids locks."""

    outcomes: list[Outcome] = field(default_factory=list)
    waits_s: Sequence[float] = ()
    runs: list[_Run] = field(default_factory=list)


class Batcher:
    """Runs texts through a model, `threads` groups at a time."""

    def __init__(
        self,
        encode: Encode,
        *,
        model: str,
        threads: int,
        queue: TextQueue,
        max_wait_s: float,
        metrics: Metrics,
    ) -> None:
        self._encode = encode
        self._queue = queue
        self._admission = Admission(max_wait_s)
        self._tokens_per_s = _FIRST_RATE
        self._threads = [
            threading.Thread(target=self._work, name=f"inference-{i}", daemon=True)
            for i in range(threads)
        ]
        self._ready = threading.Condition()
        self._stopping = False
        self._running = 0
        self._batch_texts = metrics.batch_texts.labels(model)
        self._batch_tokens = metrics.batch_tokens.labels(model)
        self._inference_duration = metrics.inference_duration.labels(model)
        self._queue_wait = metrics.queue_wait.labels(model)
        self._inference_errors = metrics.inference_errors
        self._shed = metrics.shed
        self._model = model
        metrics.queue_depth.labels(model).set_function(lambda: len(queue))

    def start(self) -> None:
        """Start the threads; results are delivered on the running event loop."""
        self._loop = asyncio.get_running_loop()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Finish the queued texts that are still wanted, then end the threads; this blocks."""
        with self._ready:
            self._stopping = True
            self._ready.notify_all()
        for thread in self._threads:
            thread.join()

    def has_spare(self) -> bool:
        """Return whether a thread is idle and nothing waits: more work would delay no request."""
        with self._ready:
            return not len(self._queue) and self._running < len(self._threads)

    @property
    def is_overloaded(self) -> bool:
        """Whether there is a standing queue, in which optional work should not wait."""
        return self._admission.is_overloaded

    def begin(self, tokens: int) -> Reservation:
        """Admit a request of this many tokens; its texts may then be submitted in parts.

        The request keeps its place: for later requests all of its tokens count as waiting until
        they are submitted or the reservation ends.

        Raises:
            Overloaded: the request would wait too long.
            Unavailable: the batcher is stopping.
        """
        with self._ready:
            if self._stopping:
                raise Unavailable("the server is stopping", retry_after_s=1)
            self._admit(tokens)
            return self._queue.begin(tokens)

    def end(self, reservation: Reservation) -> None:
        """Release the part of a request that was not submitted."""
        with self._ready:
            self._queue.end(reservation)

    def submit(
        self, texts: Sequence[Ids], reservation: Reservation | None = None
    ) -> list[asyncio.Future[Vector]]:
        """Queue texts of an admitted request, or of a new request.

        Each future gets its float32 [dim] unit vector, or fails with `InferenceFailed` or
        `Unavailable`. Cancelling it drops its text if its inference has not begun.

        Raises:
            Overloaded, Unavailable: as `begin` does; nothing of these texts was queued.
        """
        loop = asyncio.get_running_loop()
        reservation = reservation or self.begin(sum(len(ids) for ids in texts))
        futures: list[asyncio.Future[Vector]] = [loop.create_future() for _ in texts]
        queued = [QueuedText(ids, future) for ids, future in zip(texts, futures, strict=True)]
        with self._ready:
            if self._stopping:
                raise Unavailable("the server is stopping", retry_after_s=1)
            self._queue.put(queued, time.monotonic(), reservation)
            self._ready.notify(len(queued))
        gil_yield = GilYield.of_running_loop()
        for future in futures:
            gil_yield.begin_job()
            future.add_done_callback(lambda _: gil_yield.end_job())
        return futures

    def _admit(self, tokens: int) -> None:
        rate = self._tokens_per_s * len(self._threads)
        wait_s = self._queue.tokens_ahead(tokens) / rate
        retry_after_s = self._admission.refuse(wait_s, tokens / rate)
        if retry_after_s is not None:
            self._shed.labels("queue").inc()
            raise Overloaded(
                f"the inference queue is {1000 * wait_s:.0f} ms long; try again later",
                code="queue_full",
                retry_after_s=retry_after_s,
            )

    def _work(self) -> None:
        step_back()
        ran = 0
        while (taken := self._take(ran)) is not None:
            ran = 1
            done = _Done()
            for text in taken.expired:
                error = Unavailable("the text waited too long for inference", retry_after_s=1)
                done.outcomes.append((text, error))
            if taken.expired:
                self._shed.labels("timeout").inc(len(taken.expired))
            if taken.group:
                now = time.monotonic()
                done.waits_s = [now - text.enqueued_at for text in taken.group]
                done.outcomes += zip(taken.group, self._run(taken.group, done), strict=True)
            self._hand_over(done)

    def _take(self, ran: int) -> Taken | None:
        """Wait for the next group and return it; None once the batcher has stopped.

        `ran` is 1 for a thread that has just run a group.
        """
        with self._ready:
            self._running -= ran
            while not len(self._queue):
                if self._stopping:
                    return None
                self._admission.ran_empty()
                self._ready.wait()
            self._running += 1
            return self._queue.take(time.monotonic())

    def _run(self, group: Sequence[QueuedText], done: _Done) -> list[Vector | ApiError]:
        ids = np.array([text.ids for text in group], dtype=np.int64)
        started = time.perf_counter()
        try:
            vectors = self._encode(ids)
        except Exception as error:  # any exception of the runtime fails the group, not the server
            if len(group) > 1:
                middle = len(group) // 2
                return self._run(group[:middle], done) + self._run(group[middle:], done)
            logger.exception("inference failed for a text of %d tokens", ids.size)
            return [self._failure("raised", f"inference failed: {type(error).__name__}")]
        duration_s = time.perf_counter() - started
        done.runs.append(_Run(len(group), ids.size, duration_s))
        rate = ids.size / max(duration_s, 1e-6)
        self._tokens_per_s = _RATE_MEMORY * self._tokens_per_s + (1 - _RATE_MEMORY) * rate
        return [
            vector
            if is_usable(vector)
            else self._failure("invalid", "the model returned no usable vector for this text")
            for vector in vectors
        ]

    def _failure(self, reason: str, message: str) -> InferenceFailed:
        self._inference_errors.labels(self._model, reason).inc()
        return InferenceFailed(message, code="inference_failed")

    def _hand_over(self, done: _Done) -> None:
        try:
            self._loop.call_soon_threadsafe(self._deliver, done)
        except RuntimeError:
            # The event loop has ended, and all waiters with it.
            logger.warning(
                "%d vectors were computed after the event loop had ended", len(done.outcomes)
            )

    def _deliver(self, done: _Done) -> None:
        for wait_s in done.waits_s:
            self._queue_wait.observe(wait_s)
        for run in done.runs:
            self._inference_duration.observe(run.duration_s)
            self._batch_texts.observe(run.texts)
            self._batch_tokens.observe(run.tokens)
        for text, outcome in done.outcomes:
            if text.future.done():
                continue
            if isinstance(outcome, ApiError):
                text.future.set_exception(outcome)
            else:
                text.future.set_result(outcome)
