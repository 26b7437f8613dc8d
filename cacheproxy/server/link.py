"""What the supervisor and its workers say to each other, over a pair of sockets for each worker.

A frame is its length (4 bytes, little-endian) and a message in msgpack. The first one, which tells
a worker what to serve, is pickled instead: settings hold types of their own, and nobody else can
write to these sockets. When one side ends, the other reads the end of the stream.
"""

import asyncio
import itertools
import logging
import pickle
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import msgspec

from cacheproxy.errors import ModelError, Unavailable
from cacheproxy.settings.settings import Settings
from cacheproxy.telemetry.merged import Family, take_snapshot
from cacheproxy.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

_LENGTH_BYTES = 4

_ANSWER_S = 2.0
"""Longest time for which a scrape waits for the supervisor, which itself waits less for workers."""


@dataclass(frozen=True)
class Job:
    """What a worker is to serve: the file descriptors of its listening sockets have names."""

    settings: Settings
    listeners: dict[str, int]


class Ready(msgspec.Struct, frozen=True, tag=True):
    """The worker accepts connections."""


class Failed(msgspec.Struct, frozen=True, tag=True):
    """The worker cannot start, because of its settings or for want of a model."""

    because_of: Literal["settings", "model"]
    message: str


class Count(msgspec.Struct, frozen=True, tag=True):
    """The worker is to say what it has counted."""

    number: int


class Counted(msgspec.Struct, frozen=True, tag=True):
    """What the worker had counted after it read the `Count` of this number."""

    number: int
    families: list[Family]


class Scrape(msgspec.Struct, frozen=True, tag=True):
    """The worker wants the metrics of all."""

    number: int


class Look(msgspec.Struct, frozen=True, tag=True):
    """The worker wants the samples of the last minutes that were taken after `since`."""

    number: int
    since: float


class Told(msgspec.Struct, frozen=True, tag=True):
    """The answer to the `Scrape` or `Look` of this number: Prometheus' text format, or JSON."""

    number: int
    text: bytes


class Stop(msgspec.Struct, frozen=True, tag=True):
    """The worker is to close its socket after a time, finish its requests unless at once, end."""

    wait_s: float
    at_once: bool


Message = Ready | Failed | Count | Counted | Scrape | Look | Told | Stop

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Message)


def _frame(data: bytes) -> bytes:
    return len(data).to_bytes(_LENGTH_BYTES, "little") + data


class Channel:
    """Messages in both directions over one end; belongs to one event loop."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, connection: socket.socket) -> "Channel":
        """Return the channel over a connection, which is its own from now on."""
        return cls(*await asyncio.open_unix_connection(sock=connection))

    def send(self, message: Message) -> None:
        """Send a message; one that the other side no longer reads is lost."""
        self._writer.write(_frame(_encoder.encode(message)))

    @property
    def is_backed_up(self) -> bool:
        """Whether the other side has not read for so long that messages begin to pile up here."""
        return self._writer.transport.get_write_buffer_size() > 0

    def send_job(self, job: Job) -> None:
        """Send the first message to a worker."""
        self._writer.write(_frame(pickle.dumps(job)))

    async def messages(self) -> AsyncIterator[Message]:
        """Yield what comes until the other side has ended."""
        try:
            while True:
                size = int.from_bytes(await self._reader.readexactly(_LENGTH_BYTES), "little")
                yield _decoder.decode(await self._reader.readexactly(size))
        except (asyncio.IncompleteReadError, ConnectionError):
            return

    async def close(self) -> None:
        """Send what is still to be sent, and close."""
        self._writer.close()
        with suppress(ConnectionError):
            await self._writer.wait_closed()


class WorkerLink:
    """A worker's end: it hears orders, says what it has counted, and asks for what all have."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._awaited: dict[int, asyncio.Future[bytes]] = {}
        self._numbers = itertools.count(1)
        self._count: Count | None = None

    def receive_job(self) -> Job:
        """Return what is to be served; waits for it."""
        size = int.from_bytes(self._receive(_LENGTH_BYTES), "little")
        job: Job = pickle.loads(self._receive(size))  # noqa: S301
        return job

    def _receive(self, size: int) -> bytes:
        data = self._connection.recv(size, socket.MSG_WAITALL)
        if len(data) < size:
            raise SystemExit("the supervisor is gone")
        return data

    def say_failed(self, error: Exception) -> None:
        """Say why this worker cannot start; no event loop may be running any more."""
        because_of: Literal["settings", "model"] = (
            "model" if isinstance(error, ModelError) else "settings"
        )
        self._connection.setblocking(True)
        with suppress(ConnectionError):  # the supervisor has gone, and needs no reason
            self._connection.sendall(_frame(_encoder.encode(Failed(because_of, str(error)))))

    async def open(self, metrics: Metrics, on_stop: Callable[[Stop], None]) -> None:
        """Hear orders from now on; the end of the supervisor is one to stop."""
        self._metrics = metrics
        # A second descriptor, so that a failure can be told after the event loop's end.
        self._channel = await Channel.open(self._connection.dup())
        self._listening = asyncio.create_task(self._listen(on_stop))

    async def close(self) -> None:
        """Say for the last time what was counted."""
        self._listening.cancel()
        self._say_counted(Count(0))
        await self._channel.close()

    def say_ready(self) -> None:
        """Say that connections are accepted."""
        self._channel.send(Ready())

    async def exposition(self) -> bytes:
        """Return the metrics of all workers in the Prometheus text format.

        Raises:
            Unavailable: the supervisor does not answer.
        """
        return await self._ask(Scrape(next(self._numbers)))

    async def recent(self, since: float) -> bytes:
        """Return the samples of all workers taken after a time, as JSON (`live.Recent`).

        Raises:
            Unavailable: the supervisor does not answer.
        """
        return await self._ask(Look(next(self._numbers), since))

    async def _ask(self, question: Scrape | Look) -> bytes:
        answer = self._awaited[question.number] = asyncio.get_running_loop().create_future()
        self._channel.send(question)
        try:
            return await asyncio.wait_for(answer, _ANSWER_S)
        except TimeoutError:
            raise Unavailable("the other workers' metrics cannot be had") from None
        finally:
            del self._awaited[question.number]

    async def _listen(self, on_stop: Callable[[Stop], None]) -> None:
        async for message in self._channel.messages():
            match message:
                case Count():
                    self._count_soon(message)
                case Told():
                    answer = self._awaited.get(message.number)
                    if answer is not None and not answer.done():
                        answer.set_result(message.text)
                case Stop():
                    on_stop(message)
        logger.warning("the supervisor is gone; this worker ends, too")
        on_stop(Stop(0, at_once=False))

    def _count_soon(self, count: Count) -> None:
        """Answer once, should several have come while the event loop did not turn."""
        if self._count is None:
            asyncio.get_running_loop().call_soon(self._answer_count)
        self._count = count

    def _answer_count(self) -> None:
        if self._count is not None:
            self._say_counted(self._count)
            self._count = None

    def _say_counted(self, count: Count) -> None:
        families = take_snapshot(self._metrics.registry, self._metrics.merges)
        self._channel.send(Counted(count.number, families))
