"""The Redis store through Sentinel: it is always the master that is asked."""

import asyncio
import hashlib
import time

import numpy as np
import pytest

from cacheproxy.errors import StoreError
from cacheproxy.stores.protocol import Entry, Partition
from cacheproxy.stores.purges import Scope
from cacheproxy.stores.redis.store import RedisStore

PARTITION = Partition("0123456789abcdef" * 2, "model")
PROBE = np.eye(1, 32, dtype=np.float32)[0]


def entry(name: str, store: RedisStore) -> Entry:
    """Return an entry that the store's process begins to make now."""
    key, now = hashlib.sha256(name.encode()).digest(), time.time()
    generation = store.purges.generation
    return Entry(key, PARTITION, name.encode(), now + 60, probe=PROBE, generation=generation)


async def until(condition):
    """Wait until the condition, a coroutine function, holds."""
    async with asyncio.timeout(30):
        while True:
            try:
                if await condition():
                    return
            except StoreError:
                pass
            await asyncio.sleep(0.02)


@pytest.fixture
async def stores(sentinel_pair):
    """Two stores, as two processes have them."""
    stores = [RedisStore(sentinel_pair.url) for _ in range(2)]
    for store in stores:
        await store.open()
    yield stores
    for store in stores:
        await store.close()


async def works(one: RedisStore, other: RedisStore, name: str) -> None:
    """Check that both tiers and purges work, from one process to the other."""
    key = entry(name, one).key

    async def is_written():
        # Begun anew each time: a master that has lost its notes of purges takes no older work.
        return await one.put_many([entry(name, one)]) == 1

    async def is_found():
        (neighbour,) = await other.nearest(PARTITION, PROBE[None])
        return neighbour is not None and await other.get_many([key]) == [name.encode()]

    async def is_heard():
        return other.purges.is_listening and other.purges.generation == one.purges.generation

    await until(is_written)
    await until(is_found)
    await until(is_heard)
    assert key in [entry.key async for part in one.scan() for entry in part]

    async def is_purged():
        # Not confirmed, and repeated, while the old master does not know that it is none.
        return await one.purge(Scope(PARTITION.namespace_id)) >= 0

    await until(is_purged)
    await until(is_heard)
    assert await other.get_many([key]) == [None]
    assert await other.nearest(PARTITION, PROBE[None]) == [None]


@pytest.mark.parametrize("how", ["frozen", "replaced"])
async def test_all_goes_on_with_the_new_master(sentinel_pair, stores, how):
    pair = sentinel_pair
    one, other = stores
    await works(one, other, "before")
    # Several connections to the old master, all of which are to be given up.
    await asyncio.gather(*(one.get_many([b"0" * 32]) for _ in range(8)))

    old = pair.master
    if how == "frozen":
        old.pause()
    else:
        await asyncio.to_thread(pair.fail_over)
    await works(one, other, "after")
    assert pair.master is not old
    with pair.master.client() as client:
        assert not [name for name in client.scan_iter("cp:e*") if client.pttl(name) == -1]
