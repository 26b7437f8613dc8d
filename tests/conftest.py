"""What tests of all kinds share: the installed model and the evaluation data."""

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import platformdirs
import pytest
from network import Network, NoNetwork
from redis_server import NoRedis, RedisServer
from redis_topology import SentinelPair, ThreeNodes

from cacheproxy.errors import ModelError
from cacheproxy.modelkit.install import load_installed

Started = TypeVar("Started")

# Images of Python often forbid bytecode. Without it each server that a test starts compiles all
# modules again: half a second of CPU.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

MODEL = "all-MiniLM-L6-v2"
SMALL_MODEL = "paraphrase-MiniLM-L3-v2"
SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"

_OF_PROCESSES = {"deploy", "examples", "faults", "loadtest", "system"}
"""Folders whose tests start real processes."""

_OF_REDIS = {
    *("breakable_cluster", "breakable_redis", "redis_cluster", "redis_url"),
    *("sentinel_pair", "start_redis", "wired_cluster", "wired_pair"),
}
"""Fixtures that do."""

_LONG = ("simulation", "loadtest", "system", "examples", "deploy", "evaluation", "docs", "faults")
"""Folders whose files take long. Shared by several processes, they are begun first: at the end only
short files are left, and no process works alone on a long one."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let tests of real processes be run once more when they fail; the summary names them.

    Each is a defect to look into (`docs/contributing.md`). Other tests fail at once, the
    simulation's too, in which nothing happens by chance.
    """
    if config.pluginmanager.hasplugin("rerunfailures"):
        for item in items:
            is_of_redis = _OF_REDIS.intersection(getattr(item, "fixturenames", ()))
            if _folder(item) in _OF_PROCESSES or is_of_redis:
                item.add_marker(pytest.mark.flaky(reruns=1))
    if hasattr(config, "workerinput"):  # a process of several; all must have the same order
        items.sort(key=lambda item: _LONG.index(one) if (one := _folder(item)) in _LONG else 99)


def _folder(item: pytest.Item) -> str:
    """Return the folder under `tests/` that a test is in."""
    parts = item.path.parts
    return parts[-parts[::-1].index("tests")] if "tests" in parts else ""


def pytest_terminal_summary(terminalreporter) -> None:
    """Tell why tests were run again; the plugin names them only."""
    for report in terminalreporter.getreports("rerun"):
        terminalreporter.write_sep("_", f"first failure of {report.nodeid}")
        report.toterminal(terminalreporter._tw)


def home_with(model: str) -> Path:
    """Return the tests' home folder, in which a model is installed, built on first use."""
    home = Path(os.environ.get("CACHEPROXY_TEST_HOME") or platformdirs.user_cache_dir("cacheproxy"))
    try:
        load_installed(model, home)
    except ModelError:
        command = [sys.executable, "-m", "cacheproxy", "model", "build", model, "--home", str(home)]
        subprocess.run(command, check=True)
    return home


@pytest.fixture(scope="session")
def model_home() -> Path:
    """A home folder in which the default model is installed."""
    return home_with(MODEL)


@pytest.fixture(scope="session")
def small_model_home(model_home) -> Path:
    """The same, in which a smaller model is installed beside it."""
    return home_with(SMALL_MODEL)


@pytest.fixture(scope="session")
def installed(model_home):
    return load_installed(MODEL, model_home)


@pytest.fixture(scope="session")
def shared_rows():
    """Return a function that reads an evaluation file, or skips the test where there is none."""

    def read(name: str) -> list[dict]:
        path = SHARED_DATA / name
        if not path.is_file():
            pytest.skip(f"the evaluation data {name} is not here")
        with path.open() as lines:
            return [json.loads(line) for line in lines]

    return read


def start_or_skip(make: Callable[..., Started] = RedisServer, *args: object, **more) -> Started:
    """Return a Redis that runs; where there can be none, fail in CI and skip the test elsewhere."""
    try:
        server = make(*args, **more)
    except NoRedis as reason:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(reason))
    try:
        server.start()
    except BaseException:
        server.remove()
        raise
    return server


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """A Redis with the Query Engine that tests share; they empty its database as they please."""
    if given := os.environ.get("CACHEPROXY_TEST_REDIS_URL"):
        yield given
        return
    server = start_or_skip()
    yield server.url
    server.remove()


@pytest.fixture(scope="session")
def redis_cluster() -> Iterator[ThreeNodes]:
    """A cluster that tests share; they empty it as they please."""
    cluster = start_or_skip(ThreeNodes)
    yield cluster
    cluster.remove()


@pytest.fixture(scope="module")
def breakable_cluster() -> Iterator[ThreeNodes]:
    """A cluster of this module's own, to be broken on purpose."""
    cluster = start_or_skip(ThreeNodes)
    yield cluster
    cluster.remove()


@pytest.fixture(scope="module")
def breakable_redis() -> Iterator[RedisServer]:
    """A Redis of this module's own, to be broken on purpose."""
    server = start_or_skip()
    yield server
    server.remove()


@pytest.fixture
def start_redis() -> Iterator[Callable[..., RedisServer]]:
    """Return a function that starts a Redis of this test's own, to be broken on purpose."""
    servers: list[RedisServer] = []

    def start(*flags: str, **more) -> RedisServer:
        servers.append(start_or_skip(RedisServer, *flags, **more))
        return servers[-1]

    yield start
    for server in servers:
        server.remove()


@pytest.fixture
def sentinel_pair() -> Iterator[SentinelPair]:
    """A master and its replica of this test's own, to be broken on purpose."""
    pair = start_or_skip(SentinelPair)
    yield pair
    pair.remove()


@pytest.fixture
def network() -> Iterator[Network | None]:
    """A network whose wires can be cut; None where none can be made, as without root."""
    try:
        network = Network()
    except NoNetwork as error:
        warnings.warn(f"no test of partitions: {error}", stacklevel=1)
        yield None
        return
    yield network
    network.remove()


@pytest.fixture
def wired_pair(network) -> Iterator[SentinelPair]:
    """The same as `sentinel_pair`, on a network if there can be one."""
    pair = start_or_skip(SentinelPair, network)
    yield pair
    pair.remove()


@pytest.fixture
def wired_cluster(network) -> Iterator[ThreeNodes]:
    """A cluster of this test's own, on a network if there can be one."""
    cluster = start_or_skip(ThreeNodes, network)
    yield cluster
    cluster.remove()
