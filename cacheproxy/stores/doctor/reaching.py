"""How the servers of a URL are reached, and why not."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal

from redis.asyncio import ConnectionPool
from redis.asyncio.connection import AbstractConnection

from cacheproxy.errors import StoreError
from cacheproxy.stores.doctor.findings import Finding
from cacheproxy.stores.redis.cluster_link import ClusterLink
from cacheproxy.stores.redis.link import RedisLink, connect
from cacheproxy.stores.redis.purging.floors import GENERATION
from cacheproxy.stores.redis.url import Address, ClusterNodes, make_pool
from cacheproxy.stores.url_parts import split_url

_SNIFF_S = 1.0

Speech = Literal["TLS", "plain"]


@dataclass(frozen=True)
class Node:
    """A server that was reached.

    Attributes:
        name: its address, for people.
        link: to it.
        pool: makes further connections to it.
        database: the number of the database.
    """

    name: str
    link: RedisLink
    pool: ConnectionPool
    database: int

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[AbstractConnection]:
        """Give an open connection of the caller's own.

        Raises:
            StoreError: there is none to be had.
        """
        connection: AbstractConnection = self.pool.make_connection()
        if error := await connect(connection):
            raise error
        try:
            yield connection
        finally:
            await connection.disconnect(nowait=True)


class NotReached(Exception):
    """No server can be examined.

    Attributes:
        finding: why.
    """

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.line)
        self.finding = finding


@asynccontextmanager
async def reached(url: str, *, is_cluster: bool) -> AsyncIterator[list[Node]]:
    """Give the servers that hold the keys: one, or all masters of a cluster.

    Raises:
        ConfigError: the URL cannot be read.
        NotReached: none answers.
    """
    async with contextlib.AsyncExitStack() as closing:
        if is_cluster:
            nodes = await _cluster_nodes(url, closing)
        else:
            pool = make_pool(url)
            link = RedisLink(pool, max_connections=2)
            closing.push_async_callback(pool.aclose)
            closing.push_async_callback(link.close)
            await _open(link, url, _address_of(pool))
            database = int(pool.connection_kwargs.get("db") or 0)
            nodes = [Node(_shown(_address_of(pool)), link, pool, database)]
        yield nodes


async def _cluster_nodes(url: str, closing: contextlib.AsyncExitStack) -> list[Node]:
    known = ClusterNodes(url)
    cluster = ClusterLink(known, home=GENERATION, max_connections=2)
    closing.push_async_callback(cluster.close)
    await _open(cluster, url, known.seeds[0])
    return [
        Node(_shown(address), link, known.make_pool(address), 0)
        for address, link in cluster.masters.items()
    ]


async def _open(link: RedisLink | ClusterLink, url: str, address: Address | None) -> None:
    if await link.open():
        return
    try:
        link.check()
    except StoreError as error:
        raise NotReached(await _why_not(error, url, address)) from error


async def _why_not(error: StoreError, url: str, address: Address | None) -> Finding:
    check, node = "connection", _shown(address)
    if "cluster support disabled" in str(error):
        says = "the URL is a cluster's, and this is a single server"
        return Finding(check, "error", says, "write redis:// in place of redis+cluster://", node)
    if error.kind == "noauth":
        todo = "correct the user and the password in the URL"
        return Finding(check, "error", f"the login was refused ({error})", todo, node)
    spoken = await _spoken(address) if address is not None else None
    has_tls = split_url(url).scheme.startswith("rediss")
    if spoken == "plain" and has_tls:
        todo = "write redis:// in place of rediss://, or name the server's TLS port"
        return Finding(check, "error", "the server speaks no TLS on this port", todo, node)
    if spoken == "TLS" and not has_tls:
        todo = "write rediss:// in place of redis://"
        return Finding(check, "error", "the server wants TLS on this port", todo, node)
    if spoken == "TLS":
        todo = "give ssl_ca_certs in the URL, or the name that the certificate has"
        return Finding(check, "error", f"the TLS handshake failed ({error})", todo, node)
    return Finding(check, "error", str(error), "start Redis there, or correct the URL", node)


async def _spoken(address: Address) -> Speech | None:
    """Return what a server speaks on a port; None if it cannot be told."""
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(_SNIFF_S):
            if (await _first_bytes(address)).startswith((b"+", b"-")):
                return "plain"
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(_SNIFF_S):
            anyone = ssl.create_default_context()
            anyone.check_hostname, anyone.verify_mode = False, ssl.CERT_NONE
            _, writer = await asyncio.open_connection(*address, ssl=anyone)
            writer.transport.abort()
            return "TLS"
    return None


async def _first_bytes(address: Address) -> bytes:
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(b"PING\r\n")
        return await reader.read(64)
    finally:
        writer.transport.abort()


def _address_of(pool: ConnectionPool) -> Address | None:
    options = pool.connection_kwargs
    return (options["host"], int(options.get("port", 6379))) if "host" in options else None


def _shown(address: Address | None) -> str:
    return "" if address is None else f"{address[0]}:{address[1]}"
