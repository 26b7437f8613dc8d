"""Failovers under load, each shortly after a purge; CACHEPROXY_TEST_FAILOVERS says how many.

What was purged and acknowledged is never served again, and every request is answered with 200.
"""

import asyncio
import os

import pytest
from failovers import Cluster, Failovers, Pair
from server_process import Server
from upstream import Upstream, well_behaved

ROUNDS = int(os.environ.get("CACHEPROXY_TEST_FAILOVERS", "3"))
DEADLINE_MS = 25
BUSY_MS = 1_000
"""What a busy machine may add to one request, whatever the store does."""

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
        pair = request.getfixturevalue("wired_pair")
        return pair, Pair(pair)
    cluster = request.getfixturevalue("wired_cluster")
    return cluster, Cluster(cluster)


async def test_no_acknowledged_purge_is_lost_by_a_failover(redis, network, model_home, upstream):
    processes, topology = redis
    servers: list[Server] = []

    def total(name: str, **labels: str) -> float:
        return sum(server.metric(name, **labels) for server in servers)

    try:
        # One without a hot tier, so that its hits are the store's.
        for hot in ((), ("--chat-hot-bytes", "0")):
            flags = ("--drain-s", "0", "--admin-port", "0", "--upstream", upstream.url, *hot)
            servers.append(await asyncio.to_thread(Server, model_home, processes.url, *flags))
        hows = [how for how in topology.hows if network or how != "partition"]
        failovers = Failovers(topology, servers, SEED, hows)
        upstream.always = failovers.answer
        report = await failovers.run(1)
        # The first round cuts a master off, which is no refusal: nothing came back.
        if isinstance(topology, Cluster):  # lookups go on without that node
            assert total("store_nodes_unanswered") > 0
        elif network:
            assert total("store_errors_total", kind="timeout") > 0
            assert total("store_skipped_total") > 0
        await failovers.run(ROUNDS - 1)
        print(f"\n{type(topology).__name__}: {report}")
        assert report.purged_served == []
        assert report.not_200 == []
        assert report.hits > 100
        assert report.slowest_store_ms < DEADLINE_MS + BUSY_MS
    finally:
        for server in servers:
            await asyncio.to_thread(server.stop)
    if network is None:
        pytest.skip("all passed but partitions: no network namespaces can be made here")
