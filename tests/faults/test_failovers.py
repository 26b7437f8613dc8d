"""Failovers under load, each shortly after a purge; CACHEPROXY_TEST_FAILOVERS says how many.

What was purged and acknowledged is never served again, and every request is answered with 200.
"""

import asyncio
import os

import pytest
from failovers import Cluster, Failovers, Pair
from server_process import Server
from upstream import Upstream, well_behaved

ROUNDS = int(os.environ.get("CACHEPROXY_TEST_FAILOVERS", "2"))
SEED = int(os.environ.get("CACHEPROXY_TEST_FAILOVERS_SEED", "1"))


@pytest.fixture
def upstream():
    upstream = Upstream()
    yield upstream
    upstream.always = well_behaved
    upstream.stop()


@pytest.fixture(params=["sentinel", "cluster"])
def redis(request):
    """Several Redis processes, and how they are failed over."""
    if request.param == "sentinel":
        pair = request.getfixturevalue("sentinel_pair")
        return pair, Pair(pair)
    cluster = request.getfixturevalue("breakable_cluster")
    return cluster, Cluster(cluster)


async def test_no_acknowledged_purge_is_lost_by_a_failover(redis, model_home, upstream):
    processes, topology = redis
    servers: list[Server] = []
    try:
        # One without a hot tier, so that its hits are the store's.
        for hot in ((), ("--chat-hot-bytes", "0")):
            flags = ("--drain-s", "0", "--admin-port", "0", "--upstream", upstream.url, *hot)
            servers.append(await asyncio.to_thread(Server, model_home, processes.url, *flags))
        failovers = Failovers(topology, servers, SEED)
        upstream.always = failovers.answer
        report = await failovers.run(ROUNDS)
        print(f"\n{type(topology).__name__}: {report}")
        assert report.purged_served == []
        assert report.not_200 == []
        assert report.hits > 100
    finally:
        for server in servers:
            await asyncio.to_thread(server.stop)
