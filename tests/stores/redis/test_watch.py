"""What the Redis store tells of its search indexes, and that it makes blind ones anew."""

import asyncio
import hashlib
import math
import time

import numpy as np
import pytest
from redis_entries import count_stored

from cacheproxy.stores.protocol import Entry, Partition
from cacheproxy.stores.redis.index import ProbeIndex
from cacheproxy.stores.redis.store import RedisStore

DIMENSIONS = 32
PARTITION = Partition("0123456789abcdef" * 2, "model")
INDEX = ProbeIndex(PARTITION.fingerprint, DIMENSIONS)

PROBES = np.eye(DIMENSIONS, dtype=np.float32)
BLIND = f"FT.CREATE {INDEX.name} ON HASH PREFIX 1 cp:e3: FILTER exists(@nothing) SCHEMA" + (
    f" namespace TAG tags TAG {INDEX.field} VECTOR HNSW 6 TYPE FLOAT16 DIM {DIMENSIONS}"
    " DISTANCE_METRIC COSINE"
)


def entries(probes, *, ttl_s=60.0):
    return [
        Entry(hashlib.sha256(probe).digest(), PARTITION, b"r", time.time() + ttl_s, (), probe)
        for probe in probes
    ]


@pytest.fixture
async def store(redis_url, client):
    store = RedisStore(redis_url)
    await store.open()
    yield store
    await store.close()


async def looked(store) -> None:
    """Look once at indexes that Redis has filled with what there was before them."""
    async with asyncio.timeout(20):
        await store._watch.look()
        while store.stats().index.indexed_ratio < 1:
            await store._watch.look()


async def test_what_the_index_holds_is_told(store):
    assert math.isnan(store.stats().index.documents)
    await store.put_many(entries(PROBES))
    await looked(store)

    seen = store.stats().index
    assert (seen.is_up, seen.documents, seen.failures) == (True, DIMENSIONS, 0)
    assert seen.size_bytes > DIMENSIONS * DIMENSIONS * 2
    assert seen.rebuilds == 0


async def test_an_index_that_finds_nothing_of_what_is_there_is_made_anew(store, client, caplog):
    client.execute_command(*BLIND.split())
    await store.put_many(entries(PROBES))
    assert await store.nearest(PARTITION, PROBES) == [None] * DIMENSIONS

    await looked(store)

    expected = [entry.key for entry in entries(PROBES)]
    async with asyncio.timeout(20):
        while [one and one.key for one in await store.nearest(PARTITION, PROBES)] != expected:
            await asyncio.sleep(0.01)
    assert count_stored(client) == DIMENSIONS
    assert store.stats().index.rebuilds == 1
    assert "does not find existing entries" in caplog.text


async def test_an_index_is_not_made_anew_over_and_over(store, client):
    client.execute_command(*BLIND.split())
    await store.put_many(entries(PROBES))
    await looked(store)
    client.ft(INDEX.name).dropindex()
    client.execute_command(*BLIND.split())

    await looked(store)

    assert store.stats().index.rebuilds == 1


@pytest.mark.parametrize("gone", ["expired", "removed"])
async def test_an_index_that_rightly_finds_nothing_is_left_alone(store, client, gone):
    await store.put_many(entries(PROBES, ttl_s=0.05 if gone == "expired" else 60))
    if gone == "removed":
        for name in client.scan_iter("cp:e3:*"):
            client.delete(name)
    async with asyncio.timeout(20):
        while count_stored(client):
            await asyncio.sleep(0.01)

    await looked(store)

    assert store.stats().index.rebuilds == 0


async def test_one_of_many_processes_makes_it_anew(store, client, redis_url):
    client.execute_command(*BLIND.split())
    other = RedisStore(redis_url)
    await other.open()
    await asyncio.gather(store.put_many(entries(PROBES)), other.put_many(entries(PROBES)))

    await asyncio.gather(looked(store), looked(other))

    assert store.stats().index.rebuilds + other.stats().index.rebuilds == 1
    await other.close()


async def test_an_index_that_cannot_be_used_is_told(store, client):
    client.execute_command(*BLIND.replace("FLOAT16", "FLOAT32").split())
    await store.nearest(PARTITION, PROBES)

    assert not store.stats().index.is_up


async def test_an_index_that_was_dropped_is_found_missing_and_made(store, client):
    await store.put_many(entries(PROBES))
    client.ft(INDEX.name).dropindex()
    await looked(store)

    async with asyncio.timeout(20):
        while INDEX.name.encode() not in client.execute_command("FT._LIST"):
            await asyncio.sleep(0.01)
