"""Request coalescing for streamed results: one call, any number of readers.

A reader that joins late first gets the parts that have arrived, then each new one. Up to a bound,
the whole result is held, so that it can be cached. Beyond that bound only a window is held, the
slowest reader limits the speed of the call, and no further reader can join.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from types import TracebackType
from typing import Any, Generic, TypeVar

from prometheus_client import Gauge

from cacheproxy.errors import ApiError, without_frames
from cacheproxy.stores.purges import Purges
from cacheproxy.tiers.flights import Flight

Head = TypeVar("Head")

_WINDOW_BYTES = 256 * 1024
"""The window, bytes: how much of a result too long to be held may wait for the slowest reader."""


class StreamFlight(Flight, Generic[Head]):
    """A call whose result begins with a head and arrives in parts.

    Attributes:
        is_held: whether the result is held from its beginning, so that other readers can join.
    """

    def __init__(self, purges: Purges, *, most_bytes: int, waiting: Gauge) -> None:
        """Prepare to hold up to `most_bytes`, and to count readers in `waiting`."""
        super().__init__(purges)
        self.is_held = True
        self._most_bytes = most_bytes
        self._waiting = waiting
        self._head: asyncio.Future[Head] = asyncio.get_running_loop().create_future()
        self._parts: list[bytes] = []
        self._dropped = 0  # parts that have left the window
        self._size_bytes = 0
        self._readers: list[Reader[Head]] = []
        self._changed = asyncio.Event()
        self._is_over = False
        self._failure: ApiError | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def can_be_joined(self) -> bool:
        """Whether a reader that joins now gets the whole result."""
        return self.is_held

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Start the call; `work` reports its progress through the methods below."""
        self._task = asyncio.create_task(work)

    def begin(self, head: Head) -> None:
        """Report the head of the result."""
        self._head.set_result(head)

    async def add(self, part: bytes) -> None:
        """Add a part of the body; return when there is room for more."""
        self._parts.append(part)
        self._size_bytes += len(part)
        self._wake()
        if self._size_bytes > self._most_bytes:
            self.is_held = False
        while not self.is_held and self._drop_what_was_read() > _WINDOW_BYTES:
            await self._changed.wait()

    def end(self) -> None:
        """Report that the body is complete."""
        self._is_over = True
        self._wake()

    def fail(self, error: ApiError) -> None:
        """Report a failure; readers get it after the parts that have arrived."""
        self._failure = without_frames(error)
        if not self._head.done():
            self._head.set_exception(error)
            self._head.exception()  # retrieved, as there may be no reader
        self.end()

    def _drop_what_was_read(self) -> int:
        """Drop the parts that every reader has read; return the size of the rest, bytes."""
        read = min((reader.place for reader in self._readers), default=self._dropped)
        gone = self._parts[: read - self._dropped]
        del self._parts[: len(gone)]
        self._dropped = read
        self._size_bytes -= sum(map(len, gone))
        return self._size_bytes

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def read(self) -> "Reader[Head]":
        """Return a new reader, from the beginning of the body."""
        reader = Reader(self)
        self._readers.append(reader)
        self._waiting.inc()
        return reader

    def leave(self, reader: "Reader[Head]") -> None:
        """Remove a reader; when the last one leaves, an unfinished call is cancelled."""
        self._readers.remove(reader)
        self._waiting.dec()
        if not self._readers and not self._is_over and self._task is not None:
            self.is_held = False  # a reader that joined now would hang
            self._task.cancel()
        self._wake()

    def was_read(self) -> None:
        """Report that a reader has advanced, which may make room."""
        if not self.is_held:
            self._wake()

    async def next_part(self, place: int) -> bytes | None:
        """Return the part with this number, once it has arrived; None at the end.

        Raises:
            ApiError: the call has failed.
        """
        while place - self._dropped >= len(self._parts):
            if self._is_over:
                if self._failure is not None:
                    raise self._failure
                return None
            await self._changed.wait()
        return self._parts[place - self._dropped]

    async def head(self) -> Head:
        """Return the head, once it has arrived.

        Raises:
            ApiError: the call failed before it.
        """
        return await asyncio.shield(self._head)


class Reader(Generic[Head]):
    """One request that waits for a flight's result; a context manager that leaves it at the end.

    Attributes:
        place: number of the next part.
    """

    def __init__(self, flight: StreamFlight[Head]) -> None:
        self.flight = flight
        self.place = 0

    def __enter__(self) -> "Reader[Head]":
        """Return the reader; it was counted when it was created."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the flight."""
        self.flight.leave(self)

    async def parts(self) -> AsyncIterator[bytes]:
        """Yield the parts of the body as they arrive; raises `ApiError` if the call fails."""
        while (part := await self.flight.next_part(self.place)) is not None:
            self.place += 1
            self.flight.was_read()
            yield part

    async def body(self) -> bytes:
        """Return the whole body."""
        parts = [part async for part in self.parts()]
        return parts[0] if len(parts) == 1 else b"".join(parts)
