"""A connection that is over is freed at once, not when the garbage collector comes round."""

import asyncio
import gc
import weakref

import pytest
from http_connections import answering_nothing_at_once, maker_of_connections

from cacheproxy.server.http.connection import HttpConnection


async def answer(scope, receive, send) -> None:
    await receive()
    headers = [(b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"{}"})


@pytest.mark.parametrize("leaves_early", [False, True])
async def test_a_connection_that_is_over_is_freed_at_once(leaves_early):
    make = maker_of_connections(answer, answering_nothing_at_once())
    made = []
    lost = asyncio.Event()

    def connection() -> HttpConnection:
        one = make()
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
