"""The interface between the items route and inference, in this process or by an upstream."""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from cacheproxy.inference.batcher import Batcher
from cacheproxy.inference.input import Input
from cacheproxy.inference.queue import Reservation, Vector
from cacheproxy.keys import KeyScope


class Given(NamedTuple):
    """One input: as the client gave it, and as the local model reads it (may be empty)."""

    input: Input
    ids: Sequence[int]


class Inferred(NamedTuple):
    """One result.

    Attributes:
        vector: float32 [d], or a score, float64 [1].
        tokens: the number of tokens read for it.
        may_keep: whether it may be stored.
    """

    vector: NDArray[np.floating[Any]]
    tokens: int
    may_keep: bool = True


class Engine(Protocol):
    """Runs inference; `read` interprets the results of its futures.

    Attributes:
        is_overloaded: whether optional work should not be queued.
    """

    @property
    def is_overloaded(self) -> bool: ...

    def encode(self, inputs: Sequence[Input]) -> Sequence[Sequence[int]]:
        """Return the ids of each input as the local model reads them; raises `BadRequest`.

        It may run beside the event loop.
        """

    def is_cut(self, ids: Sequence[int]) -> bool:
        """Return whether the text may have been truncated to these ids."""

    def probe_sees_all(self, ids: Sequence[int]) -> bool:
        """Return whether these ids hold everything that the result depends on."""

    def key_of(self, scope: KeyScope, given: Given) -> bytes:
        """Return the key [32 bytes], a hash of everything that the result depends on."""

    def begin(self, tokens: int) -> Reservation | None:
        """Admit a request of this many tokens; raises `Overloaded` or `Unavailable`.

        The reservation is its place in the queue, kept until it is submitted or ended.
        """

    def end(self, reservation: Reservation) -> None:
        """Release the part of a request that was not submitted."""

    def submit(
        self, givens: Sequence[Given], reservation: Reservation | None = None
    ) -> list[asyncio.Future[Any]]:
        """Start inference; each future ends with a result or an `ApiError`, or is cancelled."""

    def read(self, result: Any, given: Given) -> Inferred:
        """Return the result that a future of this engine ended with."""


class Tasks:
    """Tasks that complete futures; each runs as long as one of its futures is wanted."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()

    def start(
        self, work: Coroutine[Any, Any, None], futures: Sequence[asyncio.Future[Any]]
    ) -> None:
        """Start work that completes the futures; it is cancelled once all of them are."""
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

        def leave(_: asyncio.Future[Any]) -> None:
            if all(future.cancelled() for future in futures):
                task.cancel()

        for future in futures:
            future.add_done_callback(leave)


class InputTokenizer(Protocol):
    """Turns inputs of one kind into ids."""

    def read(self, inputs: Sequence[Input]) -> Sequence[Sequence[int]]:
        """Return the ids of each input; raises `BadRequest`."""

    def is_full(self, ids: Sequence[int]) -> bool:
        """Return whether the input may have been truncated to these ids."""


class LocalEngine:
    """A model in this process, whose vectors, or scores, depend on the token ids alone."""

    def __init__(self, batcher: Batcher, tokenizer: InputTokenizer) -> None:
        self._batcher = batcher
        self._tokenizer = tokenizer

    @property
    def is_overloaded(self) -> bool:
        """Whether the batcher has a standing queue."""
        return self._batcher.is_overloaded

    def encode(self, inputs: Sequence[Input]) -> Sequence[Sequence[int]]:
        """Return the ids, with special tokens."""
        return self._tokenizer.read(inputs)

    def is_cut(self, ids: Sequence[int]) -> bool:
        """Return whether the ids fill the model's longest length."""
        return self._tokenizer.is_full(ids)

    def probe_sees_all(self, ids: Sequence[int]) -> bool:
        """Return True: the vector depends on these ids alone."""
        return True

    def key_of(self, scope: KeyScope, given: Given) -> bytes:
        """Return the key of the token ids."""
        return scope.of_ids(given.ids)

    def begin(self, tokens: int) -> Reservation:
        """Admit the request to the batcher."""
        return self._batcher.begin(tokens)

    def end(self, reservation: Reservation) -> None:
        """Release the place in the batcher's queue."""
        self._batcher.end(reservation)

    def submit(
        self, givens: Sequence[Given], reservation: Reservation | None = None
    ) -> list[asyncio.Future[Vector]]:
        """Queue the texts."""
        return self._batcher.submit([given.ids for given in givens], reservation)

    def read(self, result: Vector, given: Given) -> Inferred:
        """Return the vector, with the number of ids that were read."""
        return Inferred(result, len(given.ids))
