"""Every implementation of `Store`, opened for a test, and what their tests share.

An implementation joins by adding to IMPLEMENTATIONS an async context manager that gives an
`Opened`.
"""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

import numpy as np
from redis.asyncio import Redis

from cacheproxy.stores.embedded.store import EmbeddedStore
from cacheproxy.stores.encrypted import EncryptedStore, RecordCipher
from cacheproxy.stores.protocol import Partition, Store
from cacheproxy.stores.redis.cluster import ClusterStore
from cacheproxy.stores.redis.store import RedisStore


class SetClock:
    """Time as an embedded store reads it; passes only when told."""

    def __init__(self) -> None:
        self._now = 1_700_000_000.0

    def now(self) -> float:
        return self._now

    async def let_pass(self, seconds: float) -> None:
        self._now += seconds


class RealClock:
    """Time as a server reads it; passes by itself."""

    def now(self) -> float:
        return time.time()

    async def let_pass(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@dataclass(frozen=True)
class Opened:
    """An open, empty store, and what is special to it.

    Attributes:
        clock: by which its entries expire.
        another: makes another store on the same data, as another process does; None in memory.
        score_error: how exact its scores are.
    """

    store: Store
    clock: SetClock | RealClock
    another: Callable[[], Store] | None = None
    score_error: float = 1e-5


@asynccontextmanager
async def embedded_file(request) -> AsyncIterator[Opened]:
    clock, path = SetClock(), request.getfixturevalue("tmp_path") / "cache.sqlite"

    def make() -> EmbeddedStore:
        return EmbeddedStore(path, max_bytes=2**30, now=clock.now)

    store = make()
    await store.open()
    yield Opened(store, clock, make)
    await store.close()


@asynccontextmanager
async def encrypted_file(request) -> AsyncIterator[Opened]:
    async with embedded_file(request) as plain:
        cipher = RecordCipher([b"a" * 32, b"b" * 32])

        def make() -> EncryptedStore:
            return EncryptedStore(plain.another(), cipher)

        yield Opened(EncryptedStore(plain.store, cipher), plain.clock, make)


@asynccontextmanager
async def embedded_memory(request) -> AsyncIterator[Opened]:
    clock = SetClock()
    store = EmbeddedStore(None, max_bytes=2**30, now=clock.now)
    await store.open()
    yield Opened(store, clock)
    await store.close()


@asynccontextmanager
async def redis_server(request) -> AsyncIterator[Opened]:
    url = request.getfixturevalue("redis_url")
    async with Redis.from_url(url) as client:
        await client.flushall()
    store = RedisStore(url)
    await store.open()
    # float16 rounds each number of a probe by at most 2**-12 of it.
    yield Opened(store, RealClock(), lambda: RedisStore(url), score_error=2**-12)
    await store.close()


@asynccontextmanager
async def redis_cluster(request) -> AsyncIterator[Opened]:
    cluster = request.getfixturevalue("redis_cluster")
    cluster.flush()
    store = ClusterStore(cluster.url)
    await store.open()
    yield Opened(store, RealClock(), lambda: ClusterStore(cluster.url), score_error=2**-12)
    await store.close()


IMPLEMENTATIONS: dict[str, Callable[..., AbstractAsyncContextManager[Opened]]] = {
    "embedded-file": embedded_file,
    "embedded-memory": embedded_memory,
    "encrypted": encrypted_file,
    "redis": redis_server,
    "redis-cluster": redis_cluster,
}

DIMENSIONS = 32
PARTITION = Partition(hashlib.md5(b"ours", usedforsecurity=False).hexdigest(), "model-a")
OTHER_NAMESPACE = Partition(hashlib.md5(b"theirs", usedforsecurity=False).hexdigest(), "model-a")
OTHER_CONTEXT = Partition(PARTITION.namespace_id, PARTITION.fingerprint, "system prompt")
OTHER_MODEL = Partition(PARTITION.namespace_id, "model-b")


def key(name) -> bytes:
    return hashlib.sha256(str(name).encode()).digest()


def probes(count: int, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((count, DIMENSIONS)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


SHARED = ("embedded-file", "encrypted", "redis", "redis-cluster")
"""Those that other processes reach."""

HOSTILE = [
    "", " ", "a,b|c", "{tag}", "@partition:{*}", "*", "'; DROP TABLE entries; --", "\0", "\r\n",
    "é", "e\u0301", "\u202e", "😀", "x" * 10_000, "%s", "\\", '"', "-@:$",
]  # fmt: skip
