"""Servers are replaced one after the other under load, and no caller notices.

With CACHEPROXY_TEST_OLD=CHECKOUT those that are replaced run another version's sources.
"""

import asyncio
import itertools
import os
import signal

import httpx
import pytest
from balancer import Balancer
from server_process import Server
from steady_load import KNOWN, MODEL, TEXTS, SteadyLoad, ask_without_cache

OLD = os.environ.get("CACHEPROXY_TEST_OLD")
"""A checkout of the version that is replaced; by default it is this one."""


@pytest.fixture
def start(start_server):
    """Return a function that starts a server on the store that all share, off the event loop."""

    async def start(*flags: str, checkout: str | None = None) -> Server:
        more = ("--drain-s", "1", *flags)
        return await asyncio.to_thread(start_server, *more, checkout=checkout)

    return start


async def test_no_request_fails_while_every_server_is_replaced(start):
    kinds = [(), ("--workers", "2")]
    async with Balancer() as balancer:
        serving = [await start(*flags, checkout=OLD) for flags in kinds]
        for server in serving:
            balancer.add(server.url)
            await balancer.until(server.url, is_ready=True)
        truth = await ask_without_cache(serving[0].url)
        body, headers = {"input": TEXTS, "model": MODEL}, {"x-cacheproxy-namespace": KNOWN}
        asked = await asyncio.to_thread(
            serving[0].http.post, "/v1/embeddings", json=body, headers=headers
        )
        assert asked.status_code == 200

        async with SteadyLoad(balancer.url, truth) as load:
            await load.run(0.5)
            for old, flags in zip(serving, kinds, strict=True):
                new = await start(*flags)
                balancer.add(new.url)
                await balancer.until(new.url, is_ready=True)

                old.process.send_signal(signal.SIGTERM)
                await balancer.until(old.url, is_ready=False)
                assert await asyncio.to_thread(old.process.wait, 30) == 0
                balancer.remove(old.url)

                answers = await load.run(0.5)
                assert len(answers) > 10
            since = len(load.answers)
            await load.until(lambda: len(load.answers) > since + 2 * len(TEXTS), "known texts")

    # What the ones before have computed the new ones serve, from the first request on.
    known = [one for one in load.answers[since:] if one.is_known]
    assert len(known) >= len(TEXTS) // 2
    assert [one for one in known if "hit" not in one.cache_status] == []


async def test_a_kept_connection_is_ended_politely_while_the_server_drains(start):
    server = await start("--drain-s", "3")
    async with httpx.AsyncClient(base_url=server.url) as http:
        assert "connection" not in (await http.get("/healthz")).headers

        server.process.send_signal(signal.SIGTERM)
        for _ in itertools.count():
            answer = await http.get("/readyz")
            if answer.status_code == 503:
                break
        assert answer.headers["connection"] == "close"
        body = {"model": "all-MiniLM-L6-v2", "input": "still served"}
        answer = await http.post("/v1/embeddings", json=body)
        assert (answer.status_code, answer.headers["connection"]) == (200, "close")
