"""HTTP/1.1 to one server: many kept-open connections with one exchange at a time on each.

httptools parses the answers, as in uvicorn. A client library takes two to three times as long for a
request (measured: aiohttp 166 to 220 us, this 77 to 95; httpx does not keep up with 1,000/s), and
on two cores the generator takes that time from the server.
"""

import asyncio
import ssl
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import httptools

from ..traffic.target import Target
from .pieces import Pieces

NO_ANSWER = 0
"""Stands in place of a status when the connection failed or the request timed out."""

_TAIL = 16
"""Number of bytes kept from the end of an answer: a complete stream ends with `data: [DONE]`."""


@dataclass(slots=True, eq=False)
class Exchange:
    """One request and its answer; times are those of `time.perf_counter`.

    Attributes:
        stream: number of the stream.
        index: number of the request in the stream.
        due: when it should be sent.
        request: its bytes.
        sent: when it was sent.
        first: when the first byte of the answer's body arrived.
        status: HTTP status, or `NO_ANSWER`.
        cache_status: value of the header Cache-Status.
        retry_after: whether the answer had the header Retry-After.
        tail: the last bytes of the body.
        is_second_try: whether it must not be sent again.
        pieces: of an answer that is a stream of events, or None.
    """

    stream: int
    index: int
    due: float
    request: bytes
    sent: float = 0.0
    first: float = 0.0
    status: int = NO_ANSWER
    cache_status: bytes = b""
    retry_after: bool = False
    tail: bytes = b""
    is_second_try: bool = False
    pieces: Pieces | None = None


class Client:
    """Sends exchanges, and hands each to `on_done` when it is answered or has failed."""

    def __init__(
        self, target: Target, on_done: Callable[[Exchange], None], *, most_connections: int
    ) -> None:
        self._target = target
        self._on_done = on_done
        self._most = most_connections
        self._idle: list[_Connection] = []
        self._all: set[_Connection] = set()
        self._waiting: deque[Exchange] = deque()
        self._opening: set[asyncio.Task[None]] = set()
        self._tls = ssl.create_default_context() if target.is_tls else None

    async def open(self, count: int) -> None:
        """Open connections before they are needed.

        Raises:
            OSError: the server cannot be reached.
        """
        for _ in range(min(count, self._most)):
            self._idle.append(await self._connect())

    def send(self, exchange: Exchange) -> None:
        """Send a request on a free connection, or as soon as there is one."""
        if self._idle:
            # The one used last, so that the server can close those that are not needed.
            self._idle.pop().begin(exchange)
            return
        self._waiting.append(exchange)
        self._open_more()

    def _open_more(self) -> None:
        if len(self._all) + len(self._opening) < self._most:
            task = asyncio.get_running_loop().create_task(self._open_for_waiting())
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    def give_up(self, sent_before: float) -> None:
        """End the unanswered exchanges that were sent, or due, before a moment."""
        while self._waiting and self._waiting[0].due < sent_before:
            self._on_done(self._waiting.popleft())
        for connection in list(self._all):
            exchange = connection.exchange
            if exchange is not None and exchange.sent < sent_before:
                exchange.is_second_try = True  # not again
                connection.close()

    def close(self) -> None:
        """Close every connection; nothing may be in flight."""
        for connection in list(self._all):
            connection.close()

    async def _connect(self) -> "_Connection":
        loop = asyncio.get_running_loop()
        target = self._target
        _, connection = await loop.create_connection(
            lambda: _Connection(self), target.host, target.port, ssl=self._tls
        )
        return connection

    async def _open_for_waiting(self) -> None:
        try:
            connection = await self._connect()
        except OSError:
            if self._waiting:
                self._on_done(self._waiting.popleft())
            return
        self.free(connection)

    def add(self, connection: "_Connection") -> None:
        """Count an open connection."""
        self._all.add(connection)

    def free(self, connection: "_Connection") -> None:
        """Give a connection the next waiting exchange."""
        if connection not in self._all:
            return  # closed before it could be used
        if self._waiting:
            connection.begin(self._waiting.popleft())
        else:
            self._idle.append(connection)

    def done(self, connection: "_Connection", exchange: Exchange, *, keep: bool) -> None:
        """Hand over an answered exchange; before that, reuse its connection if it stays open."""
        if keep:
            self.free(connection)
        else:
            connection.close()
        self._on_done(exchange)

    def lost(self, connection: "_Connection", exchange: Exchange | None) -> None:
        """Forget a closed connection; send its request again if no part of an answer had come."""
        self._all.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if self._waiting:
            self._open_more()
        if exchange is None:
            return
        if connection.answers and not exchange.first and not exchange.is_second_try:
            # The server closed the idle connection while the request was in flight.
            exchange.is_second_try = True
            exchange.status = NO_ANSWER
            self.send(exchange)
        else:
            exchange.status = NO_ANSWER
            self._on_done(exchange)


class _Connection(asyncio.Protocol):
    """One connection; httptools calls the methods named `on_…`."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._parser = httptools.HttpResponseParser(self)
        self.exchange: Exchange | None = None
        self.answers = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._client.add(self)

    def begin(self, exchange: Exchange) -> None:
        """Send a request; the connection must be free."""
        self.exchange = exchange
        self._transport.write(exchange.request)
        exchange.sent = time.perf_counter()

    def close(self) -> None:
        """Close the connection at once."""
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.close()

    def connection_lost(self, error: Exception | None) -> None:
        exchange, self.exchange = self.exchange, None
        self._client.lost(self, exchange)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.exchange is None:
            return
        name = name.lower()
        if name == b"cache-status":
            self.exchange.cache_status = value
        elif name == b"retry-after":
            self.exchange.retry_after = True
        elif name == b"content-type" and value.startswith(b"text/event-stream"):
            self.exchange.pieces = Pieces()

    def on_body(self, body: bytes) -> None:
        exchange = self.exchange
        if exchange is None:
            return
        if not exchange.first:
            exchange.first = time.perf_counter()
        if exchange.pieces is not None:
            exchange.pieces.feed(body, time.perf_counter())
        exchange.tail = body[-_TAIL:] if len(body) >= _TAIL else (exchange.tail + body)[-_TAIL:]

    def on_message_complete(self) -> None:
        exchange, self.exchange = self.exchange, None
        if exchange is None:
            return
        exchange.status = self._parser.get_status_code()
        self.answers += 1
        self._client.done(self, exchange, keep=self._parser.should_keep_alive())
