"""A request that is still coming when requests stop being answered at once is served as usual."""

import asyncio

from http_connections import answering_nothing_at_once, maker_of_connections


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
    at_once = answering_nothing_at_once()
    at_once.add("/asked", KnowsNothing())
    make = maker_of_connections(answer, at_once)
    server = await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0)
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
