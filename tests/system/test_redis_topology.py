"""A server on several Redis processes that belong together: one ends, and no request fails."""

import asyncio

from steady_load import SteadyLoad, ask_without_cache

FLAGS = ("--cache-hot-bytes", "0", "--semantic-threshold", "1")


async def test_the_master_is_killed_and_hits_return_with_the_new_one(sentinel_pair, start_server):
    pair = sentinel_pair
    server = await asyncio.to_thread(start_server, *FLAGS, store=pair.url)
    async with SteadyLoad(server.url, await ask_without_cache(server.url)) as load:
        await load.until_hits()
        old = pair.master
        old.kill()
        await load.until(lambda: pair.master is not old, "a new master")
        await load.until_hits()
        await load.until(lambda: server.metric("store_up") == 1, "a store that is up")
        await load.until(lambda: server.metric("purges_heard") == 1, "a subscription")
        await load.until(lambda: server.metric("store_breaker_state") == 0, "closed breakers")
        assert server.metric("semantic_index_up") == 1
        with pair.master.client() as client:
            assert not [name for name in client.scan_iter() if client.pttl(name) == -1]


async def test_a_node_of_a_cluster_is_killed_and_comes_back(breakable_cluster, start_server):
    cluster = breakable_cluster
    server = await asyncio.to_thread(start_server, *FLAGS, store=cluster.url)
    assert server.metric("semantic_index_up") == 1
    async with SteadyLoad(server.url, await ask_without_cache(server.url)) as load:
        await load.until_hits()
        cluster.nodes[2].kill()
        missed = server.metric("store_nodes_unanswered")
        await load.until(
            lambda: server.metric("store_nodes_unanswered") > missed + 20, "lookups without it"
        )
        cluster.nodes[2].start()
        await load.until_hits()
        await load.until(lambda: server.metric("store_up") == 1, "a store that is up")
        await load.until(lambda: server.metric("purges_heard") == 1, "a subscription")
        await load.until(lambda: server.metric("store_breaker_state") == 0, "closed breakers")
    assert all(cluster.ask(node, "PTTL", name) > 0 for name, node in cluster.names().items())
