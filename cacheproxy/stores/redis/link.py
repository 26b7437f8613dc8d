"""Connections to one Redis: bounded, shared by all calls, and never reused with a reply pending.

A call takes a connection, sends all of its commands at once, reads all replies and gives the
connection back; where commands depend on replies, it repeats this on the same connection. If a
call ends early, by a deadline or a cancellation, its connection is closed, so that no reply can
reach another call. Connections are opened in tasks of their own: otherwise a caller whose deadline
is shorter than a TLS handshake would never get one.

While Redis cannot be reached, calls fail at once, and one task reconnects with backoff.
"""

import asyncio
import logging
import random
import weakref
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from redis import exceptions
from redis.asyncio import ConnectionPool
from redis.asyncio.connection import AbstractConnection

from cacheproxy.concurrency.background import stop_tasks
from cacheproxy.errors import StoreError, StoreErrorKind
from cacheproxy.stores.redis.url import SentinelPool

_log = logging.getLogger(__name__)

Command = Sequence[str | bytes | int]
Ask = Callable[[Sequence[Command]], Awaitable[list[Any]]]

_CONNECT_S = 2.0
"""Longest time for a connection to be made, handshakes included."""

_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 2.0

_KINDS: tuple[tuple[type[Exception], StoreErrorKind], ...] = (
    # In this order: some of redis-py's errors are also its ConnectionError.
    (TimeoutError, "timeout"),
    (exceptions.TimeoutError, "timeout"),
    (exceptions.BusyLoadingError, "loading"),
    (exceptions.AuthenticationError, "noauth"),
    (exceptions.NoPermissionError, "noauth"),
    (exceptions.ReadOnlyError, "readonly"),
    (exceptions.OutOfMemoryError, "oom"),
    (exceptions.ClusterDownError, "unavailable"),
    (exceptions.MasterDownError, "unavailable"),
    (exceptions.TryAgainError, "unavailable"),
    (exceptions.AskError, "unavailable"),
    (exceptions.InvalidResponse, "protocol"),
    (exceptions.ConnectionError, "connection"),
    (OSError, "connection"),
    # The rest are errors of the command itself: outages have codes of their own.
    (exceptions.ResponseError, "invalid"),
)

_UNAVAILABLE = ("BUSY ", "MISCONF ", "NOREPLICAS ", "UNBLOCKED ")
"""Beginnings of error replies without a class in redis-py: a script that does not end, a full disk,
missing replicas, a master that became a replica while it waited for one."""


UNKNOWN_COMMAND = "unknown command"


def as_store_error(error: BaseException) -> StoreError:
    """Return the `StoreError` for an error of redis-py or of the network."""
    kind: StoreErrorKind = next(
        (kind for known, kind in _KINDS if isinstance(error, known)), "other"
    )
    message = str(error) or ("no reply in time" if kind == "timeout" else type(error).__name__)
    if message.startswith(_UNAVAILABLE):
        kind = "unavailable"
    return StoreError(f"Redis: {message}", kind)


class Backoff:
    """Gives pauses between attempts to connect that double from 50 ms to 2 s.

    Each is shortened by up to half at random, so that processes do not reconnect all at once.
    """

    def __init__(self) -> None:
        self._pause_s = _FIRST_PAUSE_S

    def next_pause_s(self) -> float:
        """Return how long to wait before the next attempt, seconds."""
        pause_s = self._pause_s
        self._pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        return pause_s * random.uniform(0.5, 1)  # noqa: S311

    def reset(self) -> None:
        """Begin with the shortest pause again, after an attempt that succeeded."""
        self._pause_s = _FIRST_PAUSE_S


class _Conversation:
    """Round trips on one connection, possibly between WATCH and EXEC."""

    def __init__(self, connection: AbstractConnection) -> None:
        self.connection = connection
        self._is_answered = True
        self._is_watching = False

    @property
    def is_over(self) -> bool:
        """Whether no reply is pending and no key is watched."""
        return self._is_answered and not self._is_watching

    async def ask(self, commands: Sequence[Command]) -> list[Any]:
        self._is_answered = False
        replies = await _ask(self.connection, commands)
        self._is_answered = True
        for command in commands:
            if command[0] in ("WATCH", "EXEC", "UNWATCH"):
                self._is_watching = command[0] == "WATCH"
        return replies


class Part(NamedTuple):
    """A Redis, and a hash tag: it holds the keys that have it."""

    link: "RedisLink"
    tag: str


class RedisLink:
    """Round trips to one Redis, from one event loop."""

    def __init__(self, pool: ConnectionPool, *, max_connections: int) -> None:
        """Prepare the link.

        Args:
            pool: makes the connections. The link keeps them itself: an HGET through it takes 33 us
                of CPU, through redis-py's pool 46, through its blocking one 58 (measured).
            max_connections: further calls wait for a connection to be given back.
        """
        self._pool = pool
        self._max_connections = max_connections
        self._alive = 0  # idle or in use
        self._opening: set[asyncio.Task[None]] = set()
        self._idle: list[AbstractConnection] = []
        self._made = weakref.WeakSet[AbstractConnection]()
        self._waiting: deque[asyncio.Future[AbstractConnection]] = deque()
        self._failure: StoreError | None = None
        self._recovering: asyncio.Task[None] | None = None
        self._following: asyncio.Task[None] | None = None
        self._is_closed = False

    async def open(self) -> bool:
        """Return whether Redis can be reached; if not, keep trying in the background."""
        if isinstance(self._pool, SentinelPool):
            self._following = asyncio.create_task(self._pool.follow())
        await self._open()
        return self._failure is None

    async def close(self) -> None:
        """Close the connections; no call may be in progress."""
        self._is_closed = True
        await stop_tasks(self._recovering, self._following, *self._opening)
        for connection in self._idle:
            await connection.disconnect(nowait=True)
        self._idle.clear()
        self._refuse_waiting(StoreError("the store is closed"))

    @property
    def parts(self) -> list["RedisLink"]:
        """The links that each reach a part of the keys; this one reaches all of them."""
        return [self]

    def tagged_parts(self) -> list[Part]:
        """Return all parts, each with a tag of its keys."""
        return [Part(self, "shared")]

    def make_connection(self) -> AbstractConnection:
        """Return a new, unconnected connection; the caller connects and closes it."""
        connection: AbstractConnection = self._pool.make_connection()
        self._made.add(connection)
        return connection

    async def hang_up(self) -> None:
        """Close all connections, so that calls in progress fail now; later ones connect anew."""
        for connection in list(self._made):
            if connection.is_connected:
                await connection.disconnect(nowait=True)

    def check(self) -> None:
        """Return if a call may be tried.

        Raises:
            StoreError: the link is closed, or the last attempt to reach Redis failed.
        """
        if self._is_closed:
            raise StoreError("the store is closed")
        if self._failure is not None:
            raise StoreError(str(self._failure), self._failure.kind)

    async def ask(self, commands: Sequence[Command], *, timeout_s: float) -> list[Any]:
        """Return the replies to the commands, in one round trip.

        A command that Redis refused has a `redis.exceptions.ResponseError` in its reply's place.

        Raises:
            StoreError: Redis could not be asked or did not reply to all; some may have run.
        """
        self.check()
        try:
            async with asyncio.timeout(timeout_s):
                connection = await self._take()
                try:
                    replies = await _ask(connection, commands)
                except BaseException:
                    await self._drop(connection)
                    raise
        except TimeoutError as error:
            raise as_store_error(error) from error
        self._give(connection)
        return replies

    @asynccontextmanager
    async def conversation(self, *, timeout_s: float) -> AsyncIterator[Ask]:
        """Yield a function like `ask` that always uses the same connection, for WATCH.

        Raises:
            StoreError: as `ask`; `timeout_s` bounds the whole block.
        """
        self.check()
        try:
            async with asyncio.timeout(timeout_s):
                conversation = _Conversation(await self._take())
                try:
                    yield conversation.ask
                finally:
                    if conversation.is_over:
                        self._give(conversation.connection)
                    else:
                        await self._drop(conversation.connection)
        except TimeoutError as error:
            raise as_store_error(error) from error

    async def _take(self) -> AbstractConnection:
        while self._idle:
            # The most recently used one, so that surplus connections stay idle.
            connection = self._idle.pop()
            if await _is_ready(connection):
                return connection
            await self._drop(connection)
        turn: asyncio.Future[AbstractConnection] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self._open_another()
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self._give(turn.result())
            raise

    def _give(self, connection: AbstractConnection) -> None:
        """Hand an unused connection to the caller that has waited longest, or keep it."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(connection)
                return
        self._idle.append(connection)

    async def _drop(self, connection: AbstractConnection) -> None:
        await connection.disconnect(nowait=True)
        self._alive -= 1
        if self._waiting:
            self._open_another()

    def _open_another(self) -> None:
        if self._is_closed or self._failure is not None:
            return
        if self._alive + len(self._opening) < self._max_connections:
            task = asyncio.create_task(self._open())
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _open(self) -> None:
        connection = self.make_connection()
        error = await connect(connection)
        if error is None:
            self._alive += 1
            self._give(connection)
        elif self._alive == 0 and self._failure is None:
            # With other connections alive (Redis may just be out of client slots), use those.
            self._fall(error)

    def _fall(self, error: StoreError) -> None:
        _log.warning("cannot reach Redis, reconnecting: %s", error)
        self._failure = error
        self._refuse_waiting(error)
        self._recovering = asyncio.create_task(self._recover())

    def _refuse_waiting(self, error: StoreError) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_exception(StoreError(str(error), error.kind))

    async def _recover(self) -> None:
        backoff = Backoff()
        while True:
            await asyncio.sleep(backoff.next_pause_s())
            connection = self.make_connection()
            error = await connect(connection)
            if error is None:
                break
            self._failure = error
        self._failure = None
        self._alive += 1
        self._give(connection)
        _log.info("Redis can be reached again")


async def connect(connection: AbstractConnection) -> StoreError | None:
    """Connect, authenticate and select the database; return the error, if any."""
    try:
        async with asyncio.timeout(_CONNECT_S):
            await connection.connect()
    except (exceptions.RedisError, OSError) as error:
        await connection.disconnect(nowait=True)
        return as_store_error(error)
    except BaseException:
        await connection.disconnect(nowait=True)
        raise
    return None


def raise_error_in(reply: Any) -> None:
    """Raise the error that a reply is, or the first one in the list that EXEC returns."""
    for part in (reply, *reply) if isinstance(reply, list) else (reply,):
        if isinstance(part, exceptions.ResponseError):
            raise as_store_error(part) from part


def is_gone(reply: object) -> bool:
    """Return whether a reply says that the index does not exist."""
    return says(reply, "no such index", "unknown index", "index not found")


def is_useless(reply: object) -> bool:
    """Return whether a reply says that the index or the Query Engine is gone."""
    return is_gone(reply) or says(reply, UNKNOWN_COMMAND)


def says(reply: object, *phrases: str) -> bool:
    """Return whether a reply is an error with one of the phrases."""
    if not isinstance(reply, exceptions.ResponseError):
        return False
    said = str(reply).lower()
    return any(phrase in said for phrase in phrases)


async def _is_ready(connection: AbstractConnection) -> bool:
    """Return whether an idle connection is open and has no unread data."""
    try:
        return connection.is_connected and not await connection.can_read()
    except exceptions.ConnectionError:
        return False


async def _ask(connection: AbstractConnection, commands: Sequence[Command]) -> list[Any]:
    try:
        packed = connection.pack_commands(commands)
        await connection.send_packed_command(packed, check_health=False)
        # The pool makes only connections that have it (`url`).
        replies: list[Any] = await connection.read_replies(len(commands))  # type: ignore[attr-defined]
        return replies
    except Exception as error:
        # Any exception: replies that are not Redis' protocol may raise anything.
        raise as_store_error(error) from error
