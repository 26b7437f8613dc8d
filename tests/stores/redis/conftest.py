"""What the tests of the Redis store share: a client of the server that they use."""

import pytest
from redis import Redis


@pytest.fixture
def client(redis_url):
    """A client of the shared server, whose database is empty."""
    with Redis.from_url(redis_url, protocol=2) as client:
        client.flushall()
        client.config_resetstat()
        yield client
