"""A connection that is over is freed at once, not when the garbage collector comes round."""

import asyncio
import gc
import weakref

import pytest
import uvicorn
from uvicorn.server import ServerState

from cacheproxy.api.repeated.at_once import AtOnce
from cacheproxy.fairness.loop_turns import LoopTurns
from cacheproxy.server.http.connection import HttpConnection
from cacheproxy.settings.limits import LimitSettings
from cacheproxy.telemetry.journal import Journal
from cacheproxy.telemetry.metrics import Metrics


async def answer(scope, receive, send) -> None:
    await receive()
    headers = [(b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"{}"})


@pytest.mark.parametrize("leaves_early", [False, True])
async def test_a_connection_that_is_over_is_freed_at_once(leaves_early):
    config = uvicorn.Config(answer, interface="asgi3", lifespan="off", log_config=None)
    config.load()
    limits, shed, at_once = LimitSettings(), Metrics().shed, AtOnce(Journal("off"))
    made = []
    lost = asyncio.Event()

    def connection() -> HttpConnection:
        one = HttpConnection(
            *(config, ServerState(), {}),
            limits=limits,
            shed=shed,
            at_once=at_once,
            turns=LoopTurns(),
            owner_of=lambda headers: "",
        )
        made.append(weakref.ref(one, lambda _: lost.set()))
        return one

    server = await asyncio.get_running_loop().create_server(connection, "127.0.0.1", 0)
    gc.collect()
    gc.disable()
    try:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"POST / HTTP/1.1\r\nhost: here\r\ncontent-length: 2\r\n\r\n{}")
        if not leaves_early:
            assert (await reader.readuntil(b"{}")).startswith(b"HTTP/1.1 200")
        writer.close()
        await asyncio.wait_for(lost.wait(), 10)
        assert [one() for one in made] == [None]
    finally:
        gc.enable()
        server.close()
