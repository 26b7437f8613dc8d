"""A request that is still coming when requests stop being answered at once is served as usual."""

import asyncio

import uvicorn
from uvicorn.server import ServerState

from cacheproxy.api.repeated.at_once import AtOnce
from cacheproxy.fairness.loop_turns import LoopTurns
from cacheproxy.server.http.connection import HttpConnection
from cacheproxy.settings.limits import LimitSettings
from cacheproxy.telemetry.journal import Journal
from cacheproxy.telemetry.metrics import Metrics


class KnowsNothing:
    def knows(self, body: bytes) -> bool:
        return False

    def at_once(self, visit, body: bytes) -> None:
        return None


async def answer(scope, receive, send) -> None:
    body = b""
    more = True
    while more:
        message = await receive()
        body += message["body"]
        more = message["more_body"]
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def test_a_body_that_ends_after_the_last_answer_at_once_is_read_whole():
    config = uvicorn.Config(answer, interface="asgi3", lifespan="off", log_config=None)
    config.load()
    at_once = AtOnce(Journal("off"))
    at_once.add("/asked", KnowsNothing())
    limits, shed = LimitSettings(), Metrics().shed
    server = await asyncio.get_running_loop().create_server(
        lambda: HttpConnection(
            *(config, ServerState(), {}),
            limits=limits,
            shed=shed,
            at_once=at_once,
            turns=LoopTurns(),
            owner_of=lambda headers: "",
        ),
        *("127.0.0.1", 0),
    )
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"POST /asked HTTP/1.1\r\nhost: here\r\ncontent-length: 8\r\n\r\n{it ")
    await asyncio.sleep(0.005)
    at_once.stop()
    writer.write(b"ends")
    async with asyncio.timeout(5):
        told = await reader.readuntil(b"{it ends")
    assert told.startswith(b"HTTP/1.1 200")
    writer.close()
    server.close()
