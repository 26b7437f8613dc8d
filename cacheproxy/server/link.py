"""The protocol between the supervisor and its workers, over a socket pair for each worker.

A frame is its length (4 bytes, little-endian) and a message in msgpack. The first message, a
worker's configuration, is pickled instead, and so are settings in later ones: they contain custom
types, and no other process can write to these sockets. When one side exits, the other reads the end
of the stream.
"""

import asyncio
import itertools
import logging
import pickle
import socket
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import msgspec

from cacheproxy.admin.reloading import Commit, Reloaded, Reloading
from cacheproxy.errors import ConfigError, ModelError, Unavailable
from cacheproxy.settings.settings import Settings
from cacheproxy.telemetry.history import Answer
from cacheproxy.telemetry.merged import Family, TextFormat, take_snapshot, take_snapshot_in_turns
from cacheproxy.telemetry.metrics import Metrics
from cacheproxy.telemetry.namespaces.traffic import Tally

logger = logging.getLogger(__name__)

_LENGTH_BYTES = 4

_ANSWER_S = 2.0
"""How long a scrape waits for the supervisor, which itself waits less long for the workers."""

_RELOAD_S = 30.0
"""The same for a reload."""


@dataclass(frozen=True)
class Job:
    """A worker's configuration, with the file descriptors of its listening sockets by name.

    `warms_up` is false for one that takes the place of another.
    """

    settings: Settings
    listeners: dict[str, int]
    warms_up: bool


class Ready(msgspec.Struct, frozen=True, tag=True):
    """The worker accepts connections."""


class Failed(msgspec.Struct, frozen=True, tag=True):
    """The worker cannot start, because of its settings or because a model is missing."""

    because_of: Literal["settings", "model"]
    message: str


class Count(msgspec.Struct, frozen=True, tag=True):
    """The supervisor requests a worker's counts."""

    number: int


class Counted(msgspec.Struct, frozen=True, tag=True):
    """The worker's counts after it read the `Count` of this number, and its latest traffic."""

    number: int
    families: list[Family]
    traffic: list[Tally]


class Scrape(msgspec.Struct, frozen=True, tag=True):
    """The worker requests the metrics of all workers."""

    number: int
    text_format: TextFormat


class Look(msgspec.Struct, frozen=True, tag=True):
    """The worker requests the samples of the last minutes that were taken after `since`."""

    number: int
    since: float


class Pick(msgspec.Struct, frozen=True, tag=True):
    """The worker requests some samples of the metrics of all workers, by their names."""

    number: int
    names: list[str]


class Ask(msgspec.Struct, frozen=True, tag=True):
    """The worker asks all workers, itself included; then the supervisor asks each of them."""

    number: int
    question: bytes


class Answered(msgspec.Struct, frozen=True, tag=True):
    """The worker's answer to the `Ask` of this number."""

    number: int
    answer: bytes


class Told(msgspec.Struct, frozen=True, tag=True):
    """The answer to the `Question` of this number.

    To a `Scrape` it is a text format, to a `Look` or `Reload` JSON; to others it is msgpack.
    """

    number: int
    text: bytes


class Reload(msgspec.Struct, frozen=True, tag=True):
    """The worker asks for a reload of the settings, on behalf of `actor`."""

    number: int
    actor: str


class Refused(msgspec.Struct, frozen=True, tag=True):
    """The answer to the `Reload` of this number: why nothing has changed."""

    number: int
    message: str


class Prepare(msgspec.Struct, frozen=True, tag=True):
    """The worker is to make ready for other settings, which are pickled."""

    number: int
    settings: bytes

    @classmethod
    def to_take(cls, settings: Settings, number: int) -> "Prepare":
        """Return the message about these settings."""
        return cls(number, pickle.dumps(settings))


class Prepared(msgspec.Struct, frozen=True, tag=True):
    """The worker has done what the `Prepare` of this number asked; or why it cannot."""

    number: int
    refusal: str | None


class Take(msgspec.Struct, frozen=True, tag=True):
    """The worker is to take the settings that it has prepared for, or to forget them."""

    number: int
    is_done: bool


class Stop(msgspec.Struct, frozen=True, tag=True):
    """The worker is to close its socket after a delay, finish its requests and exit."""

    wait_s: float
    at_once: bool


Question = Scrape | Look | Pick | Ask | Reload
"""What a worker asks its supervisor."""

Message = (
    Ready
    | Failed
    | Count
    | Counted
    | Question
    | Answered
    | Told
    | Refused
    | Prepare
    | Prepared
    | Take
    | Stop
)

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Message)
_families = msgspec.msgpack.Decoder(list[Family])
_answers = msgspec.msgpack.Decoder(list[bytes])


def _frame(data: bytes) -> bytes:
    return len(data).to_bytes(_LENGTH_BYTES, "little") + data


class Channel:
    """One end of the connection, for messages in both directions; belongs to one event loop."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, connection: socket.socket) -> "Channel":
        """Return the channel over a connection, which the channel then owns."""
        return cls(*await asyncio.open_unix_connection(sock=connection))

    def send(self, message: Message) -> None:
        """Send a message; it is lost if the other side no longer reads."""
        self._writer.write(_frame(_encoder.encode(message)))

    @property
    def is_backed_up(self) -> bool:
        """Whether messages pile up because the other side does not read them."""
        return self._writer.transport.get_write_buffer_size() > 0

    def send_job(self, job: Job) -> None:
        """Send the first message to a worker."""
        self._writer.write(_frame(pickle.dumps(job)))

    async def messages(self) -> AsyncIterator[Message]:
        """Yield messages until the other side closes."""
        try:
            while True:
                size = int.from_bytes(await self._reader.readexactly(_LENGTH_BYTES), "little")
                yield _decoder.decode(await self._reader.readexactly(size))
        except (asyncio.IncompleteReadError, ConnectionError):
            return

    async def close(self) -> None:
        """Send pending messages, and close."""
        self._writer.close()
        with suppress(ConnectionError):
            await self._writer.wait_closed()


class WorkerLink:
    """A worker's end: receives orders, reports counts, and requests what all workers know.

    It is a `MetricsSource`.
    """

    answer: Answer

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._awaited: dict[int, asyncio.Future[bytes]] = {}
        self._numbers = itertools.count(1)
        self._count: Count | None = None
        self._counting: asyncio.Task[None] | None = None
        self._commit: Commit | None = None

    def receive_job(self) -> Job:
        """Wait for the configuration and return it."""
        size = int.from_bytes(self._receive(_LENGTH_BYTES), "little")
        job: Job = pickle.loads(self._receive(size))  # noqa: S301
        return job

    def _receive(self, size: int) -> bytes:
        data = self._connection.recv(size, socket.MSG_WAITALL)
        if len(data) < size:
            raise SystemExit("the supervisor has exited")
        return data

    def say_failed(self, error: Exception) -> None:
        """Report why this worker cannot start; no event loop may be running any more."""
        because_of: Literal["settings", "model"] = (
            "model" if isinstance(error, ModelError) else "settings"
        )
        self._connection.setblocking(True)
        with suppress(ConnectionError):  # the supervisor has exited and needs no reason
            self._connection.sendall(_frame(_encoder.encode(Failed(because_of, str(error)))))

    async def open(
        self, metrics: Metrics, reloading: Reloading, on_stop: Callable[[Stop], None]
    ) -> None:
        """Receive orders from now on; the supervisor's exit is an order to stop."""
        self._metrics = metrics
        self._reloading = reloading
        # A second descriptor, so that a failure can be reported after the event loop has ended.
        self._channel = await Channel.open(self._connection.dup())
        self._listening = asyncio.create_task(self._listen(on_stop))

    async def close(self) -> None:
        """Report the final counts."""
        self._listening.cancel()
        if self._counting is not None:
            self._counting.cancel()
        self._say_counted(Count(0), take_snapshot(self._metrics.registry, self._metrics.merges))
        await self._channel.close()

    def say_ready(self) -> None:
        """Report that connections are accepted."""
        self._channel.send(Ready())

    async def exposition(self, text_format: TextFormat) -> bytes:
        """Return the metrics of all workers in a text format.

        Raises:
            Unavailable: the supervisor does not answer.
        """
        return await self._ask(Scrape(next(self._numbers), text_format))

    async def recent(self, since: float) -> bytes:
        """Return the samples of all workers taken after a time, as JSON (`live.Recent`).

        Raises:
            Unavailable: the supervisor does not answer.
        """
        return await self._ask(Look(next(self._numbers), since))

    async def families(self, names: Collection[str]) -> list[Family]:
        """Return the samples of these names, of all workers.

        Raises:
            Unavailable: the supervisor does not answer.
        """
        return _families.decode(await self._ask(Pick(next(self._numbers), list(names))))

    async def ask_all(self, question: bytes) -> list[bytes]:
        """Return the answer of every worker that answers in time.

        Raises:
            Unavailable: the supervisor does not answer.
        """
        return _answers.decode(await self._ask(Ask(next(self._numbers), question)))

    async def reload(self, actor: str) -> Reloaded:
        """Have the supervisor reload the settings of all workers (`ReloadSource`).

        Raises:
            ConfigError: they cannot take them, and nothing has changed.
            Unavailable: the supervisor does not answer.
        """
        told = await self._ask(Reload(next(self._numbers), actor), _RELOAD_S)
        return msgspec.json.decode(told, type=Reloaded)

    async def _ask(self, question: Question, answer_s: float = _ANSWER_S) -> bytes:
        answer = self._awaited[question.number] = asyncio.get_running_loop().create_future()
        self._channel.send(question)
        try:
            return await asyncio.wait_for(answer, answer_s)
        except TimeoutError:
            raise Unavailable("the supervisor of the workers does not answer") from None
        finally:
            del self._awaited[question.number]

    async def _listen(self, on_stop: Callable[[Stop], None]) -> None:
        async for message in self._channel.messages():
            match message:
                case Count():
                    self._count_soon(message)
                case Ask(number, question):
                    self._channel.send(Answered(number, self.answer(question)))
                case Told():
                    answer = self._awaited.get(message.number)
                    if answer is not None and not answer.done():
                        answer.set_result(message.text)
                case Refused():
                    answer = self._awaited.get(message.number)
                    if answer is not None and not answer.done():
                        answer.set_exception(ConfigError(message.message))
                case Prepare():
                    self._channel.send(self._prepare(message))
                case Take():
                    commit, self._commit = self._commit, None
                    if commit is not None and message.is_done:
                        commit()
                case Stop():
                    on_stop(message)
        logger.warning("the supervisor has exited; this worker stops, too")
        on_stop(Stop(0, at_once=False))

    def _prepare(self, order: Prepare) -> Prepared:
        try:
            self._commit = self._reloading.prepare(pickle.loads(order.settings))  # noqa: S301
        except ConfigError as error:
            return Prepared(order.number, str(error))
        return Prepared(order.number, None)

    def _count_soon(self, count: Count) -> None:
        """Answer once if several requests arrived since an answer was begun."""
        self._count = count
        if self._counting is None:
            self._counting = asyncio.create_task(self._answer_counts())

    async def _answer_counts(self) -> None:
        registry, merges = self._metrics.registry, self._metrics.merges
        try:
            while self._count is not None:
                count, self._count = self._count, None
                self._say_counted(count, await take_snapshot_in_turns(registry, merges))
        finally:
            self._counting = None

    def _say_counted(self, count: Count, families: list[Family]) -> None:
        self._channel.send(Counted(count.number, families, self._metrics.tallies.drain()))
