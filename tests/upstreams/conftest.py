"""What the tests of upstreams share: two scripted ones."""

import pytest
from upstream import Upstream


@pytest.fixture
def servers():
    made = [Upstream(), Upstream()]
    yield made
    for server in made:
        server.stop()
