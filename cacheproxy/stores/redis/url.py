"""Reads the URL of a store in Redis: one server, a master behind Sentinel, or a cluster."""

import asyncio
import weakref
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache
from typing import Any, cast
from urllib.parse import unquote, urlsplit

from hiredis import pack_command
from redis import exceptions
from redis._parsers.hiredis import NOT_ENOUGH_DATA
from redis.asyncio import ConnectionPool
from redis.asyncio.connection import Connection, SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig

from cacheproxy.errors import ConfigError
from cacheproxy.stores.url_parts import split_url

_SENTINEL_SCHEMES = {"redis+sentinel": "redis", "rediss+sentinel": "rediss"}
_SENTINEL_PORT = 26_379
_CLUSTER_SCHEMES = {"redis+cluster": "redis", "rediss+cluster": "rediss"}
_REDIS_PORT = 6_379

_UNREADABLE = "store: the Redis URL cannot be read; are special characters percent-encoded?"

# Its own type wants a single argument.
_pack: Callable[[tuple[str | bytes | int, ...]], bytes] = cast(Any, pack_command)

Address = tuple[str, int]
"""Host and port."""

_ASK_SENTINEL_S = 0.5
"""How often each process asks for the master; takes a quarter of a percent of a core at most."""

_SENTINEL_S = 0.5
"""The longest wait for a Sentinel: two may be down, and the third is still asked before the attempt
to connect times out."""


def make_pool(url: str) -> ConnectionPool:
    """Return redis-py's pool for a URL; nothing connects yet.

    Args:
        url: `redis://`, `rediss://` or `unix://`, as redis-py reads them; or `redis+sentinel://` or
            `rediss+sentinel://` with the Sentinels' addresses and the service's name as the path.

    Raises:
        ConfigError: the URL cannot be read.
    """
    # redis-py's errors are not passed on: they may quote a part of a password that was not
    # percent-encoded.
    try:
        scheme = split_url(url).scheme
        pool = _sentinel_pool(url) if scheme in _SENTINEL_SCHEMES else _single_pool(url)
        _set_up(pool)
        pool.make_connection()
    except (ValueError, TypeError, exceptions.RedisError):
        raise ConfigError(_UNREADABLE) from None
    return pool


class ClusterNodes:
    """The nodes of a cluster: the first addresses to try, and how to connect to each.

    Attributes:
        seeds: the addresses of the URL.
    """

    def __init__(self, url: str) -> None:
        """Read a `redis+cluster://` or `rediss+cluster://` URL; nothing connects yet.

        Raises:
            ConfigError: the URL cannot be read.
        """
        try:
            parts = split_url(url)
            if parts.path.strip("/") not in ("", "0"):
                raise ConfigError("store: a cluster has database 0 only")
            credentials, at, hosts = parts.authority.rpartition("@")
            self.seeds = [_address(host, _REDIS_PORT) for host in hosts.split(",")]
            scheme = _CLUSTER_SCHEMES[parts.scheme]
            self._options: dict[str, Any] = dict(
                parse_url(f"{scheme}://{credentials}{at}node/0?{parts.query}")
            )
            self.make_connection(self.seeds[0])
        except (ValueError, TypeError, exceptions.RedisError):
            raise ConfigError(_UNREADABLE) from None

    def make_pool(self, address: Address) -> ConnectionPool:
        """Return a pool for one node; nothing connects yet."""
        host, port = address
        options = {**self._options, "host": host, "port": port}
        pool = ConnectionPool(maint_notifications_config=_no_notifications(), **options)
        _set_up(pool)
        return pool

    def make_connection(self, address: Address) -> Connection:
        """Return a new, unconnected connection to one node."""
        connection: Connection = self.make_pool(address).make_connection()
        return connection


class SentinelPool(SentinelConnectionPool):
    """Makes connections to the master; after a failover, those to the old master are closed."""

    def __init__(self, service: str, sentinel: Sentinel, **options: object) -> None:
        super().__init__(service, sentinel, **options)  # type: ignore[no-untyped-call]
        self._made = weakref.WeakSet[Connection]()

    def make_connection(self) -> Connection:
        """Return a new connection, which looks the master up when it connects."""
        connection: Connection = super().make_connection()  # type: ignore[no-untyped-call]
        self._made.add(connection)
        return connection

    async def get_master_address(self) -> Address:
        """Return the address of the current master.

        Raises:
            redis.exceptions.ConnectionError: no Sentinel answers, or none knows the master.
        """
        try:
            address: Address
            address = await super().get_master_address()  # type: ignore[no-untyped-call]
        except MasterNotFoundError:
            # Not redis-py's message, which is several lines long.
            raise exceptions.ConnectionError(
                f"no Sentinel that accepts our login knows a running master of {self.service_name}"
            ) from None
        for connection in list(self._made):
            # Otherwise a frozen old master would cost a deadline on each of them.
            if connection.is_connected and (connection.host, connection.port) != address:
                await connection.disconnect(nowait=True)
        return address

    async def follow(self) -> None:
        """Ask again and again, so that an old master that is well is left as soon as a new one is.

        Otherwise a process would go on hearing notices from it that nobody else sends there.
        """
        while True:
            await asyncio.sleep(_ASK_SENTINEL_S)
            with suppress(exceptions.RedisError, OSError):
                await self.get_master_address()

    async def aclose(self) -> None:
        """Close the connections, including those to the Sentinels."""
        await super().aclose()
        await self.sentinel_manager.aclose()


def _set_up(pool: ConnectionPool) -> None:
    # These override the URL's own options, which may not change the form of replies.
    pool.connection_kwargs.update(
        # RESP3 takes 55 us of CPU for an HGET instead of 34 (measured), and adds nothing that the
        # store reads.
        protocol=2,
        decode_responses=False,
        # The link has its own deadlines and retries; redis-py's would cost a task per write.
        socket_timeout=None,
        socket_connect_timeout=None,
        retry=Retry(NoBackoff(), 0),
    )
    pool.connection_class = _batching(pool.connection_class)  # type: ignore[arg-type]


@cache
def _batching(connection_class: Any) -> Any:
    """Return a kind of redis-py's connections for many commands at once.

    It packs them in C, which redis-py does for one command at a time in its synchronous connections
    only: in Python a search takes 51 us in place of 5 (measured). And it reads all replies that
    have come without a coroutine or three for each.
    """

    class Batching(connection_class):  # type: ignore[misc]
        async def read_replies(self, count: int) -> list[Any]:
            """Return the replies to as many commands, errors of Redis among them."""
            parser = self._parser
            replies: list[Any] = []
            while len(replies) < count:
                reply = parser._reader.gets()
                if reply is NOT_ENOUGH_DATA:
                    await parser.read_from_socket()
                elif isinstance(reply, exceptions.ConnectionError):
                    raise reply
                else:
                    replies.append(reply)
            return replies

        def pack_commands(self, commands: Iterable[Iterable[str | bytes | int]]) -> list[bytes]:
            return [b"".join([_pack(tuple(command)) for command in commands])]

    return Batching


def _single_pool(url: str) -> ConnectionPool:
    return ConnectionPool.from_url(url, protocol=2, maint_notifications_config=_no_notifications())


def _sentinel_pool(url: str) -> SentinelPool:
    parts = split_url(url)
    credentials, at, hosts = parts.authority.rpartition("@")
    service, _, database = parts.path.removeprefix("/").partition("/")
    if not service:
        raise ConfigError(
            "store: a Sentinel URL must name a service: redis+sentinel://HOST:PORT/SERVICE"
        )
    if database and not database.isdecimal():
        raise ConfigError("store: only a database number may follow the service in a Sentinel URL")
    sentinels = [_address(host, _SENTINEL_PORT) for host in hosts.split(",")]
    # The rest of the URL is read as redis-py reads its own.
    scheme = _SENTINEL_SCHEMES[parts.scheme]
    options = dict(parse_url(f"{scheme}://{credentials}{at}master/{database}?{parts.query}"))
    del options["host"]
    has_tls = options.pop("connection_class", None) is SSLConnection
    tls = {name: value for name, value in options.items() if name.startswith("ssl_")}
    sentinel = Sentinel(
        sentinels,
        sentinel_kwargs={
            **({"ssl": True, **tls} if has_tls else {}),
            "username": options.pop("sentinel_username", None),
            "password": options.pop("sentinel_password", None),
            "protocol": 2,
            "socket_timeout": _SENTINEL_S,
            "socket_connect_timeout": _SENTINEL_S,
            "retry": Retry(NoBackoff(), 0),
        },
    )
    return SentinelPool(
        unquote(service),
        sentinel,
        ssl=has_tls,
        maint_notifications_config=_no_notifications(),
        **options,
    )


def _address(text: str, default_port: int) -> Address:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ConfigError("store: an address in the URL has no host")
    try:
        return parts.hostname, parts.port or default_port
    except ValueError:
        raise ConfigError("store: an address in the URL has an invalid port") from None


def _no_notifications() -> MaintNotificationsConfig:
    # With notifications on, redis-py reuses idle connections that the server has closed.
    return MaintNotificationsConfig(enabled=False)
