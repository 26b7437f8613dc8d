"""A Redis store opened for a test, and entries to put into it."""

import asyncio
import itertools
import time
from contextlib import asynccontextmanager

import pytest
from opened_stores import key

from cacheproxy.errors import StoreError
from cacheproxy.stores.protocol import Entry, Partition
from cacheproxy.stores.redis.index import ENTRY_PREFIX, ProbeIndex
from cacheproxy.stores.redis.store import RedisStore

DIMENSIONS = 32
PARTITION = Partition("0123456789abcdef" * 2, "model")
INDEX = ProbeIndex(PARTITION.fingerprint, DIMENSIONS)


def entries(names, *, ttl_s=60.0, partition=PARTITION, probes=None, size=100, tags=()):
    """Return entries whose record begins with their name, as if begun after any purge."""
    rows = itertools.repeat(None) if probes is None else probes
    return [
        Entry(
            key(name),
            partition,
            str(name).encode().ljust(size),
            time.time() + ttl_s,
            tags,
            probe,
            2**52,
        )
        for name, probe in zip(names, rows, strict=False)
    ]


def count_stored(client) -> int:
    """Return how many entries Redis has, expired ones that it has not removed included."""
    names = client.scan_iter(match=ENTRY_PREFIX + b"*", count=1_000)
    return len(set(names))


def names_of(records) -> list[str | None]:
    return [None if record is None else record.decode().strip() for record in records]


@asynccontextmanager
async def opened(url: str, **more):
    store = RedisStore(url, **more)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def until(condition, seconds: float = 20):
    """Wait until the condition, a coroutine function, holds; return what it gave."""
    async with asyncio.timeout(seconds):
        while True:
            try:
                if value := await condition():
                    return value
            except StoreError:
                pass
            await asyncio.sleep(0.01)


async def failure_of(call) -> str:
    with pytest.raises(StoreError) as error:
        await call
    return error.value.kind
