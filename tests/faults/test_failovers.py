"""Failovers under load, each shortly after a purge; CACHEPROXY_TEST_FAILOVERS says how many.

What was purged and acknowledged is never served again, and every request is answered with 200.
"""

import asyncio
import os

import pytest
from conftest import start_or_skip
from failovers import Cluster, Failovers, Pair
from redis_topology import SentinelPair, ThreeNodes
from server_process import Server
from upstream import Upstream, well_behaved

ROUNDS = int(os.environ.get("CACHEPROXY_TEST_FAILOVERS", "3"))
SEED = int(os.environ.get("CACHEPROXY_TEST_FAILOVERS_SEED", "1"))


@pytest.fixture
def upstream():
    upstream = Upstream()
    yield upstream
    upstream.always = well_behaved
    upstream.stop()


@pytest.mark.parametrize("kind", ["sentinel", "cluster"])
async def test_no_acknowledged_purge_is_lost_by_a_failover(kind, model_home, upstream):
    if kind == "sentinel":
        redis = await asyncio.to_thread(start_or_skip, SentinelPair, 1_000)
    else:
        redis = await asyncio.to_thread(start_or_skip, ThreeNodes)
    servers: list[Server] = []
    try:
        topology = Pair(redis) if kind == "sentinel" else await asyncio.to_thread(Cluster, redis)
        # One without a hot tier, so that its hits are the store's.
        for hot in ((), ("--cache-hot-bytes", "0")):
            flags = ("--drain-s", "0", "--admin-port", "0", "--upstream", upstream.url, *hot)
            servers.append(await asyncio.to_thread(Server, model_home, redis.url, *flags))
        failovers = Failovers(topology, servers, SEED)
        upstream.always = failovers.answer
        report = await failovers.run(ROUNDS)
        print(f"\n{kind}: {report}")
        assert report.purged_served == []
        assert report.not_200 == []
        assert report.hits > 100
    finally:
        for server in servers:
            await asyncio.to_thread(server.stop)
        await asyncio.to_thread(redis.remove)
