"""A server on several Redis processes that belong together: one ends, and no request fails."""

import asyncio

import pytest
from redis_topology import SentinelPair
from steady_load import SteadyLoad, ask_without_cache

FLAGS = ("--cache-hot-bytes", "0", "--semantic-threshold", "1")


@pytest.mark.parametrize("how", ["killed", "replaced"])
async def test_the_master_ends_and_hits_return_with_the_new_one(redis_topology, start_server, how):
    pair = redis_topology(SentinelPair)
    server = await asyncio.to_thread(start_server, *FLAGS, store=pair.url)
    async with SteadyLoad(server.url, await ask_without_cache(server.url)) as load:
        await load.until_hits()
        old = pair.master
        if how == "killed":
            old.kill()
        else:
            await asyncio.to_thread(pair.fail_over)
        await load.until(lambda: pair.master is not old, "a new master")
        await load.until_hits()
        await load.until(lambda: server.metric("store_up") == 1, "a store that is up")
        await load.until(lambda: server.metric("purges_heard") == 1, "a subscription")
        await load.until(lambda: server.metric("store_breaker_state") == 0, "closed breakers")
        assert server.metric("semantic_index_up") == 1
        with pair.master.client() as client:
            assert not [name for name in client.scan_iter() if client.pttl(name) == -1]
