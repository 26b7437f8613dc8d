"""Upstreams are asked for their lists rarely, and a list that fails does not erase the last one."""

import json

import pytest
from upstream import Upstream as ScriptedUpstream
from upstream import says

from cacheproxy.settings.sections import UpstreamSettings
from cacheproxy.telemetry.metrics import Metrics
from cacheproxy.upstreams.catalogue import Catalogue
from cacheproxy.upstreams.fallback import Upstreams


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def server():
    server = ScriptedUpstream()
    yield server
    server.stop()


@pytest.fixture
async def made(server):
    """Return a function that makes a catalogue over the server, and its clock."""
    running = []

    def make(**more) -> tuple[Catalogue, Clock]:
        settings = UpstreamSettings(base_url=server.url, **more)
        upstreams = Upstreams({"main": settings}, Metrics())
        upstreams.start()
        running.append(upstreams)
        clock = Clock()
        return Catalogue(upstreams, clock), clock

    yield make
    for upstreams in running:
        await upstreams.stop()


def lists(*ids: str):
    return says(200, json.dumps({"data": [{"id": each} for each in ids]}).encode())


async def ids(catalogue: Catalogue) -> list[str]:
    return [model.id for model in await catalogue.models()]


async def test_a_list_is_asked_for_again_after_a_minute(server, made):
    catalogue, clock = made()
    server.listing = lists("a")
    assert await ids(catalogue) == ["a"]
    server.listing = lists("a", "b")

    clock.now += 59
    assert await ids(catalogue) == ["a"]
    clock.now += 2
    assert await ids(catalogue) == ["a", "b"]


async def test_the_last_list_counts_while_the_upstream_gives_none(server, made):
    catalogue, clock = made()
    server.listing = lists("a")
    await ids(catalogue)
    server.listing = says(500, b"")

    for _ in range(3):
        clock.now += 61
        assert await ids(catalogue) == ["a"]
    assert len(server.lists_asked) == 4


async def test_many_that_ask_at_once_cost_one_request(server, made):
    import asyncio

    catalogue, _ = made()
    server.listing = lists("a")

    assert await asyncio.gather(*(ids(catalogue) for _ in range(20))) == [["a"]] * 20
    assert len(server.lists_asked) == 1


async def test_an_upstream_that_takes_its_callers_keys_is_not_asked(server, made):
    catalogue, _ = made(pass_authorization=True, models=("a",))
    server.listing = lists("a", "b")

    assert await ids(catalogue) == ["a"]
    assert not server.lists_asked


async def test_its_key_goes_along(server, made):
    catalogue, _ = made(api_key="secret")
    server.listing = lists("a")

    await ids(catalogue)

    assert server.lists_asked[0].headers["authorization"] == "Bearer secret"
