"""What the tests of the Redis store share: a client of the server that they use."""

import pytest
from redis import Redis

from cacheproxy.stores.redis.cluster import ClusterStore


@pytest.fixture
def client(redis_url):
    """A client of the shared server, whose database is empty."""
    with Redis.from_url(redis_url, protocol=2) as client:
        client.flushall()
        client.config_resetstat()
        yield client


@pytest.fixture
def cluster(redis_cluster):
    """The shared cluster of three nodes, which is empty."""
    redis_cluster.flush()
    return redis_cluster


@pytest.fixture
async def open_store():
    """Return a function that opens a store on a cluster, which the test's end closes."""
    stores = []

    async def make(cluster, **more) -> ClusterStore:
        store = ClusterStore(cluster.url, **more)
        stores.append(store)
        await store.open()
        return store

    yield make
    for store in stores:
        await store.close()
