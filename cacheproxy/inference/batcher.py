"""One model's texts, from their admission to their vectors; threads that all models share run them.

A group that fails is halved until the faulty text is isolated: one bad text never fails its
batch-mates. A vector that is not finite or has length zero is an error and is never delivered.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cacheproxy.concurrency.gil import GilYield
from cacheproxy.errors import ApiError, InferenceFailed, Overloaded, Unavailable
from cacheproxy.fairness.owner import current_owner
from cacheproxy.inference.admission import Admission
from cacheproxy.inference.queue import Ids, QueuedText, Reservation, Taken, TextQueue, Vector
from cacheproxy.inference.spread import Spread
from cacheproxy.inference.threads import HandOver, InferenceThreads
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
    """Runs texts through one model; a lane of the threads."""

    def __init__(
        self,
        encode: Encode,
        *,
        model: str,
        threads: InferenceThreads,
        queue: TextQueue,
        max_wait_s: float,
        metrics: Metrics,
        encode_alone: Encode | None = None,
        is_usable: Callable[[Vector], bool] = is_usable,
    ) -> None:
        """Prepare.

        `encode_alone` gives the same bits as `encode`, with all cores for one group; None where
        there is one core. `is_usable` returns whether a result of the model, float32 [d], is one.
        """
        self._encode = encode
        self._encode_alone = encode_alone
        self._spread = Spread()
        self._is_usable = is_usable
        self._queue = queue
        self._admission = Admission(max_wait_s)
        self._tokens_per_s = _FIRST_RATE
        self._threads = threads
        self._lock = threads.lock
        self._batch_texts = metrics.batch_texts.labels(model)
        self._batch_tokens = metrics.batch_tokens.labels(model)
        self._inference_duration = metrics.inference_duration.labels(model)
        self._queue_wait = metrics.queue_wait.labels(model)
        self._inference_errors = metrics.inference_errors
        self._shed = metrics.shed
        self._model = model
        metrics.queue_depth.labels(model).set_function(lambda: len(queue))
        threads.add(self)

    def __len__(self) -> int:
        """Return how many texts wait."""
        return len(self._queue)

    @property
    def is_overloaded(self) -> bool:
        """Whether there is a standing queue, in which optional work should not wait."""
        return self._admission.is_overloaded

    def begin(self, tokens: int) -> Reservation:
        """Admit a request of the current owner; its texts may then be submitted in parts.

        The request keeps its place: for later requests all of its tokens count as waiting until
        they are submitted or the reservation ends.

        Raises:
            Overloaded: the request would wait too long.
            Unavailable: the batcher is stopping.
        """
        with self._lock:
            if self._threads.is_stopping:
                raise Unavailable("the server is stopping", retry_after_s=1)
            owner = current_owner()
            self._admit(tokens, owner)
            return self._queue.begin(tokens, owner)

    def end(self, reservation: Reservation) -> None:
        """Release the part of a request that was not submitted."""
        with self._lock:
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
        with self._lock:
            if self._threads.is_stopping:
                raise Unavailable("the server is stopping", retry_after_s=1)
            now = time.monotonic()
            self._queue.put(queued, now, reservation)
            self._threads.notify(self, len(queued), now)
        gil_yield = GilYield.of_running_loop()
        for future in futures:
            gil_yield.begin_job()
            future.add_done_callback(gil_yield.end_job)
        return futures

    def _admit(self, tokens: int, owner: str) -> None:
        ahead = self._queue.tokens_ahead(tokens, owner)
        wait_s = self._seconds(ahead) + self._threads.others_busy_s(self, ahead + tokens)
        retry_after_s = self._admission.refuse(wait_s, self._seconds(tokens), owner)
        if retry_after_s is not None:
            self._shed.labels("queue").inc()
            raise Overloaded(
                f"the inference queue is {1000 * wait_s:.0f} ms long; try again later",
                code="queue_full",
                retry_after_s=retry_after_s,
            )

    def _seconds(self, tokens: float) -> float:
        """Return how long all threads need for this many tokens."""
        return tokens / (self._tokens_per_s * self._threads.count)

    def busy_s(self, tokens: float) -> float:
        """Return how long all threads need for the texts that wait, at most this many tokens."""
        return self._seconds(min(tokens, self._queue.tokens))

    def share(self, now: float) -> None:
        """Make small groups for a while: another model has work, too."""
        self._queue.share(now)

    def ran_empty(self) -> None:
        """Record that a thread found nothing to do here: an overload is over."""
        self._admission.settle(self._queue.is_waiting)

    def take(self, now: float) -> Taken:
        """Remove and return the next group."""
        self._admission.settle(self._queue.is_waiting)
        return self._queue.take(now)

    def run(self, taken: Taken) -> HandOver:
        """Infer a group; its vectors are handed over to the event loop that waits for them."""
        done = _Done()
        for text in taken.expired:
            error = Unavailable("the text waited too long for inference", retry_after_s=1)
            done.outcomes.append((text, error))
        if taken.expired:
            self._shed.labels("timeout").inc(len(taken.expired))
        if taken.group:
            now = time.monotonic()
            done.waits_s = [now - text.enqueued_at for text in taken.group]
            done.outcomes += zip(taken.group, self._run_group(taken, done), strict=True)
        return partial(self._hand_over, done)

    def _run_group(self, taken: Taken, done: _Done) -> list[Vector | ApiError]:
        """Run a group on one core, or on all if no other group needs them and that is faster."""
        if self._encode_alone is None or not taken.is_alone:
            return self._run(taken.group, done, self._encode)
        # No lock: there is one lone group at a time.
        tokens = sum(len(text.ids) for text in taken.group)
        spread = self._spread.is_worth_it(tokens)
        encode = self._encode_alone if spread else self._encode
        outcomes = self._run(taken.group, done, encode)
        if len(done.runs) == 1:  # a group that fails is run again in parts
            self._spread.took(tokens, done.runs[0].duration_s, spread=spread)
        return outcomes

    def _run(
        self, group: Sequence[QueuedText], done: _Done, encode: Encode
    ) -> list[Vector | ApiError]:
        ids = np.array([text.ids for text in group], dtype=np.int64)
        started = time.perf_counter()
        try:
            vectors = encode(ids)
        except Exception as error:  # any exception of the runtime fails the group, not the server
            if len(group) > 1:
                middle = len(group) // 2
                halves = group[:middle], group[middle:]
                return [one for half in halves for one in self._run(half, done, encode)]
            logger.exception("inference failed for a text of %d tokens", ids.size)
            return [self._failure("raised", f"inference failed: {type(error).__name__}")]
        duration_s = time.perf_counter() - started
        done.runs.append(_Run(len(group), ids.size, duration_s))
        if encode is self._encode:
            rate = ids.size / max(duration_s, 1e-6)
            self._tokens_per_s = _RATE_MEMORY * self._tokens_per_s + (1 - _RATE_MEMORY) * rate
        return [
            vector
            if self._is_usable(vector)
            else self._failure("invalid", "the model returned no usable vector for this text")
            for vector in vectors
        ]

    def _failure(self, reason: str, message: str) -> InferenceFailed:
        self._inference_errors.labels(self._model, reason).inc()
        return InferenceFailed(message, code="inference_failed")

    def _hand_over(self, done: _Done) -> None:
        if not done.outcomes:
            return
        try:
            loop = done.outcomes[0][0].future.get_loop()
            loop.call_soon_threadsafe(self._deliver, done)
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
