"""Single-flight for answers that come bit by bit: one upstream call, any number of readers.

Whoever joins late first gets what has come so far, then what comes. The call belongs to none of
its readers: one that leaves takes nothing from the others, and when the last has left it is
cancelled. While an answer may be kept it is held whole, within a bound; beyond that it is passed
through a window, no faster than its slowest reader reads, and can no longer be joined.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from types import TracebackType
from typing import Any

from prometheus_client import Gauge

from cacheproxy.errors import ApiError
from cacheproxy.records import Record
from cacheproxy.routes.chat.request import Form
from cacheproxy.upstreams.client import Head

_WINDOW_BYTES = 256 * 1024
"""Of an answer that is too long to be held: what may wait for its slowest reader."""


class Flight:
    """One upstream call.

    Attributes:
        since: the moment (`Purges`) at which it began.
        is_held: whether its beginning is still there for who joins.
        record: what the tiers were given of it, once it is whole.
        is_stored: whether that is on its way into the store.
    """

    def __init__(self, since: int, *, most_bytes: int, waiting: Gauge) -> None:
        self.since = since
        self.is_held = True
        self.record: Record | None = None
        self.is_stored = False
        self._most_bytes = most_bytes
        self._waiting = waiting
        self._head: asyncio.Future[Head] = asyncio.get_running_loop().create_future()
        self._parts: list[bytes] = []
        self._dropped = 0  # parts that have left the window
        self._size_bytes = 0
        self._readers: list[Reader] = []
        self._changed = asyncio.Event()
        self._is_over = False
        self._failure: ApiError | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Begin the call, which is to tell how it goes by the methods below."""
        self._task = asyncio.create_task(work)

    def begin(self, head: Head) -> None:
        """Say how the answer begins."""
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
        """Say that the body is whole."""
        self._is_over = True
        self._wake()

    def fail(self, error: ApiError) -> None:
        """Say that there will be no more, and why; readers get it after what has come."""
        self._failure = error
        if not self._head.done():
            self._head.set_exception(error)
            self._head.exception()  # nobody may be waiting for it
        self.end()

    def _drop_what_was_read(self) -> int:
        """Forget the parts that every reader has had; return the bytes of the others."""
        read = min((reader.place for reader in self._readers), default=self._dropped)
        gone = self._parts[: read - self._dropped]
        del self._parts[: len(gone)]
        self._dropped = read
        self._size_bytes -= sum(map(len, gone))
        return self._size_bytes

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def read(self) -> "Reader":
        """Return a reader, from the beginning on."""
        reader = Reader(self)
        self._readers.append(reader)
        self._waiting.inc()
        return reader

    def leave(self, reader: "Reader") -> None:
        """Forget a reader; the last one to leave takes the call along."""
        self._readers.remove(reader)
        self._waiting.dec()
        if not self._readers and not self._is_over and self._task is not None:
            self.is_held = False  # the call ends a moment later; who joined it now would hang
            self._task.cancel()
        self._wake()

    def was_read(self) -> None:
        """Say that a reader has gone on, which may make room."""
        if not self.is_held:
            self._wake()

    async def next_part(self, place: int) -> bytes | None:
        """Return the part at a place, once it is there; None at the end.

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
        """Return how the answer begins, once it does.

        Raises:
            ApiError: there is none.
        """
        return await asyncio.shield(self._head)


class Reader:
    """One who waits for a flight's answer; a `with` block that leaves it at its end.

    Attributes:
        place: of the next part.
    """

    def __init__(self, flight: Flight) -> None:
        self.flight = flight
        self.place = 0

    def __enter__(self) -> "Reader":
        """Return the reader, which was counted when it was made."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave."""
        self.flight.leave(self)

    async def parts(self) -> AsyncIterator[bytes]:
        """Yield the body's parts as they come; raises `ApiError` where they break off."""
        while (part := await self.flight.next_part(self.place)) is not None:
            self.place += 1
            self.flight.was_read()
            yield part

    async def body(self) -> bytes:
        """Return the whole body."""
        parts = [part async for part in self.parts()]
        return parts[0] if len(parts) == 1 else b"".join(parts)


class Flights:
    """The flights in the air, by key and form; owned by the event loop."""

    def __init__(self) -> None:
        self._flights: dict[tuple[bytes, Form], Flight] = {}

    def __len__(self) -> int:
        """Return how many can be joined."""
        return len(self._flights)

    def get(self, key: bytes, form: Form) -> Flight | None:
        """Return the flight that can be joined, if there is one."""
        flight = self._flights.get((key, form))
        return flight if flight is not None and flight.is_held else None

    def put(self, key: bytes, form: Form, flight: Flight) -> None:
        """Let a flight be joined, in place of an older one."""
        self._flights[key, form] = flight

    def remove(self, key: bytes, form: Form, flight: Flight) -> None:
        """Let a flight be joined no more."""
        if self._flights.get((key, form)) is flight:
            del self._flights[key, form]
