"""Measures on a real Redis what the model reckons: hit rates, and what an entry and a hit take."""

import hashlib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from redis.asyncio import Redis

from cacheproxy.keys import DEFAULT_NAMESPACE, DEFAULT_TENANT, Namespace
from cacheproxy.stores.protocol import Entry, Partition
from cacheproxy.stores.redis.store import RedisStore

from ..errors import LoadTestError
from .hits import reckon, zipf

_RECORD_BYTES, _PROBE = 1_620, 256
_PART = 250
_SIZES_TTL_S = 3_600
_MOST_SIZED = 20_000
"""Entries that are written with a probe. Each takes a Redis 1 ms and more to index, and its size
does not depend on how many there are."""
_TTL_SHARE = 0.2
_ROOM_SHARE = 0.2
_PARTITION = Partition(Namespace(DEFAULT_TENANT, DEFAULT_NAMESPACE).id, "capacity")


async def check(url: str, texts: int, exponent: float, seconds: float) -> AsyncIterator[str]:
    """Yield lines that compare measured and reckoned figures; the Redis is emptied afterwards.

    Raises:
        LoadTestError: the Redis is not empty.
    """
    async with Redis.from_url(url, protocol=2) as redis:
        if await redis.dbsize():
            raise LoadTestError("--check needs an empty Redis")
        policy = (await redis.config_get("maxmemory-policy"))["maxmemory-policy"] or "noeviction"
        store = RedisStore(url)
        await store.open()
        try:
            async for line in _sizes(store, redis, min(texts, _MOST_SIZED)):
                yield line
            await redis.flushall()
            yield await _by_ttl(store, texts, exponent, seconds)
            await redis.flushall()
            yield await _by_room(store, redis, texts, exponent, seconds)
        finally:
            await redis.config_set("maxmemory", 0)
            await redis.config_set("maxmemory-policy", policy)
            await store.close()
            await redis.flushall()


async def _sizes(store: RedisStore, redis: Redis, count: int) -> AsyncIterator[str]:
    random = np.random.default_rng(1)
    before = (await redis.info("memory"))["used_memory"]
    began_at = time.monotonic()
    for start in range(0, count, _PART):
        rows = random.standard_normal((_PART, _PROBE)).astype(np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        record = random.bytes(_RECORD_BYTES)
        names = range(start, min(start + _PART, count))
        await store.put_many(
            [_entry(n, record, _SIZES_TTL_S, row) for n, row in zip(names, rows, strict=False)]
        )
    took_s = time.monotonic() - began_at
    took = ((await redis.info("memory"))["used_memory"] - before) / count
    yield f"{count:,} entries written with a probe in {took_s:,.0f} s"
    yield f"bytes an entry in Redis, {_PROBE}-dimensional probe and index included: {took:,.0f}"
    sent = await _wire(redis)
    asked = min(count, 10_000)
    for start in range(0, asked, _PART):
        await store.get_many([_key(n) for n in range(start, min(start + _PART, asked))])
    wire = (await _wire(redis) - sent) / asked
    yield f"bytes on the wire for a hit by key, both ways: {wire:,.0f}"


async def _wire(redis: Redis) -> int:
    stats = await redis.info("stats")
    return int(stats["total_net_input_bytes"] + stats["total_net_output_bytes"])


async def _by_ttl(store: RedisStore, texts: int, exponent: float, seconds: float) -> str:
    ttl_s = _TTL_SHARE * seconds
    seen = await _requests(store, texts, exponent, seconds, ttl_s, lambda s, _: s > 2 * ttl_s)
    reckoned = reckon(zipf(texts, exponent, seen.rate), "fifo", float("inf"), ttl_s)
    what = f"a TTL of {ttl_s:g} s at {seen.rate:,.0f} requests/s"
    return _line(what, seen.hit_rate, reckoned.hit_rate)


async def _by_room(
    store: RedisStore, redis: Redis, texts: int, exponent: float, seconds: float
) -> str:
    before = (await redis.info("memory"))["used_memory"]
    room = _ROOM_SHARE * texts
    await redis.config_set("maxmemory-policy", "volatile-ttl")
    await redis.config_set("maxmemory", int(before + room * (_RECORD_BYTES + 400)))
    # By then it is full, and all that it holds has been evicted once.
    seen = await _requests(store, texts, exponent, seconds, 86_400, lambda _, n: n > 2 * room)
    held = await redis.dbsize()
    reckoned = reckon(zipf(texts, exponent, seen.rate), "fifo", held, 86_400)
    return _line(f"room for {held:,} entries, volatile-ttl", seen.hit_rate, reckoned.hit_rate)


def _line(what: str, measured: float, reckoned: float) -> str:
    return f"hit rate with {what}: measured {measured:.1%}, reckoned {reckoned:.1%}"


class _Seen(NamedTuple):
    """The hit rate, and requests per second, once the store was warm."""

    hit_rate: float
    rate: float


async def _requests(
    store: RedisStore,
    texts: int,
    exponent: float,
    seconds: float,
    ttl_s: float,
    is_warm: Callable[[float, int], bool],
) -> _Seen:
    """Ask until the store is warm, and for so long afterwards.

    `is_warm` is called with the seconds that have passed, and how many entries were written.
    """
    record = np.random.default_rng(1).bytes(_RECORD_BYTES)
    began_at, written, hits, asked = time.monotonic(), 0, 0, 0
    warm_at: float | None = None
    for names in _drawn(texts, exponent):
        now = time.monotonic()
        if warm_at is None and is_warm(now - began_at, written):
            warm_at = now
        if warm_at is not None and now - warm_at > seconds:
            break
        different = list(dict.fromkeys(names.tolist()))
        found = await store.get_many([_key(name) for name in different])
        missing = [name for name, one in zip(different, found, strict=True) if one is None]
        await store.put_many([_entry(name, record, ttl_s, None) for name in missing])
        written += len(missing)
        if warm_at is not None:
            asked += len(names)
            hits += len(names) - len(missing)
    return _Seen(hits / max(asked, 1), asked / seconds)


def _drawn(texts: int, exponent: float) -> Iterator[NDArray[np.int64]]:
    random = np.random.default_rng(2)
    weights = np.arange(1, texts + 1, dtype=np.float64) ** -exponent
    upto = np.cumsum(weights / weights.sum())
    while True:
        drawn = np.searchsorted(upto, random.random(100 * _PART)).clip(max=texts - 1)
        for start, end in pairwise(range(0, len(drawn) + 1, _PART)):
            yield drawn[start:end]


def _entry(name: int, record: bytes, ttl_s: float, probe: NDArray[np.float32] | None) -> Entry:
    # As if begun after any purge: nothing is purged here.
    return Entry(_key(name), _PARTITION, record, time.time() + ttl_s, (), probe, 2**52)


def _key(name: int) -> bytes:
    return hashlib.sha256(b"%d" % name).digest()
