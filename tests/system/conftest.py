"""Starts the real server process, as a user does, and speaks to it through official clients."""

from collections.abc import Iterator

import pytest
from server_process import Server
from upstream import Upstream, well_behaved


@pytest.fixture
def start_server(model_home, tmp_path) -> Iterator:
    """Return a function that starts a server, on a store of this test's own unless told which."""
    servers: list[Server] = []
    own_store = f"sqlite:///{tmp_path / 'cache.sqlite'}"

    def start(*flags: str, store: str = own_store, **more) -> Server:
        servers.append(Server(model_home, store, "--drain-s", "0", *flags, **more))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture(scope="module")
def server(model_home) -> Iterator[Server]:
    """One server for a module's tests, on a store in memory."""
    server = Server(model_home, "memory://", "--drain-s", "0")
    yield server
    assert server.stop() == 0, server.log


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    """A scripted upstream for a module's tests."""
    upstream = Upstream()
    yield upstream
    upstream.stop()


@pytest.fixture(scope="module")
def chat(model_home, upstream) -> Iterator[Server]:
    """One server for a module's tests in front of the scripted upstream."""
    server = Server(model_home, "memory://", "--drain-s", "0", "--upstream", upstream.url)
    yield server
    assert server.stop() == 0, server.log


@pytest.fixture(autouse=True)
def _as_scripted(request) -> None:
    """Have the upstream behave again, should an earlier test have left it a plan."""
    if "upstream" in request.fixturenames:
        upstream = request.getfixturevalue("upstream")
        upstream.plan.clear()
        upstream.always = well_behaved
