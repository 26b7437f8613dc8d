import pytest
from opened_stores import IMPLEMENTATIONS, PARTITION, key

from cacheproxy.stores.protocol import Entry


@pytest.fixture(params=IMPLEMENTATIONS)
async def opened(request):
    async with IMPLEMENTATIONS[request.param](request) as opened:
        yield opened


@pytest.fixture
def store(opened):
    return opened.store


@pytest.fixture
def clock(opened):
    return opened.clock


@pytest.fixture
async def others(opened):
    """A function that opens another store on the same data, as another process does."""
    stores = []

    async def open_another():
        store = opened.another()
        await store.open()
        stores.append(store)
        return store

    yield open_another
    for store in stores:
        await store.close()


@pytest.fixture
def score_error(opened):
    return opened.score_error


@pytest.fixture
def entry(clock):
    """Return a function that makes an entry, expiring in a minute unless told otherwise."""

    def make(
        name,
        record=b"record",
        *,
        partition=PARTITION,
        ttl_s=60.0,
        tags=(),
        probe=None,
        generation=0,
    ):
        expires_at = clock.now() + ttl_s
        return Entry(key(name), partition, record, expires_at, tags, probe, generation)

    return make
