"""An upstream whose name resolves no more, or to another address."""

import asyncio
import json
import socket

import pytest
from names import Names

from cacheproxy.errors import UpstreamFailed
from cacheproxy.settings.sections import UpstreamSettings
from cacheproxy.telemetry.metrics import Metrics
from cacheproxy.upstreams.client import Upstream as Client

BODY = b'{"model": "m", "messages": [{"role": "user", "content": "Hi"}]}'


@pytest.fixture
def names(monkeypatch):
    names = Names()
    monkeypatch.setattr(socket, "getaddrinfo", names)
    return names


@pytest.fixture
async def client():
    client = Client("u", UpstreamSettings(base_url="http://llm.test:80/v1"), Metrics())
    client.start()
    yield client
    await client.stop()


async def ask(client) -> str:
    response = await client.post("chat/completions", BODY, {})
    answer = json.loads(await response.read())
    response.close()
    return answer["choices"][0]["message"]["content"]


async def until_it_is(client, outcome: str) -> None:
    """Ask again and again until the outcome is so: an answer, or an error's code."""
    async with asyncio.timeout(30):
        while True:
            try:
                was = await ask(client)
            except UpstreamFailed as error:
                was = error.code
            if was == outcome:
                return
            await asyncio.sleep(0.05)


async def test_a_name_that_resolves_no_more_is_a_failure_and_is_asked_for_again(
    client, servers, names
):
    names.ports["llm.test"] = None
    with pytest.raises(UpstreamFailed) as failed:
        await ask(client)
    assert failed.value.code == "upstream_connect"
    names.ports["llm.test"] = servers[0].port
    assert await ask(client) == "You asked: Hi"


async def test_the_next_connection_goes_to_the_address_that_the_name_has_by_then(
    client, servers, names
):
    old, new = servers
    names.ports["llm.test"] = old.port
    await ask(client)
    asked = names.asked["llm.test"]
    await ask(client)
    assert names.asked["llm.test"] == asked  # over the connection that was kept

    names.ports["llm.test"] = new.port
    old.vanish()
    await until_it_is(client, "You asked: Hi")
    assert len(new) == 1
