"""A repeat that has to be looked up is answered after its lookup, or served as usual."""

import asyncio
from contextlib import asynccontextmanager

from http_connections import answering_nothing_at_once, maker_of_connections

from cacheproxy.api.repeated.at_once import EARLIER, Earlier, WholeAnswer
from cacheproxy.server.http.connection import HttpConnection
from cacheproxy.telemetry.request_trace import Visit

EARLIER_WORK = Earlier(Visit({}), None)


class LooksUp:
    """Looks every body up, and ends a lookup when told what came of it."""

    def __init__(self) -> None:
        self.ends: list[asyncio.Future] = []

    def knows(self, body: bytes) -> bool:
        return True

    def at_once(self, visit, body: bytes):
        end = asyncio.get_running_loop().create_future()
        self.ends.append(end)

        async def later():
            return await end

        return later

    async def begun(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self.ends) < count:
                await asyncio.sleep(0.001)


class Served:
    """An application that answers with the body, and keeps the scopes."""

    def __init__(self) -> None:
        self.scopes: list[dict] = []

    async def __call__(self, scope, receive, send) -> None:
        self.scopes.append(scope)
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


class Client:
    def __init__(self, reader, writer, protocol) -> None:
        self.reader, self.writer, self.protocol = reader, writer, protocol

    def post(self, *bodies: bytes) -> None:
        head = b"POST /asked HTTP/1.1\r\nhost: here\r\ncontent-length: %d\r\n\r\n%b"
        self.writer.write(b"".join(head % (len(body), body) for body in bodies))

    async def answer(self, body: bytes) -> bytes:
        """Return the head of the next answer, which has this body."""
        async with asyncio.timeout(10):
            return await self.reader.readuntil(b"\r\n\r\n" + body)


@asynccontextmanager
async def connected(looks_up: LooksUp, app: Served):
    at_once = answering_nothing_at_once()
    at_once.add("/asked", looks_up)
    make = maker_of_connections(app, at_once)
    made: list[HttpConnection] = []

    def keep() -> HttpConnection:
        made.append(make())
        return made[-1]

    server = await asyncio.get_running_loop().create_server(keep, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    async with asyncio.timeout(10):
        while not made:
            await asyncio.sleep(0.001)
    yield Client(reader, writer, made[0])
    writer.close()
    server.close()


async def test_what_was_found_is_the_answer_and_the_connection_goes_on():
    looks_up, app = LooksUp(), Served()
    async with connected(looks_up, app) as client:
        for n in range(1, 3):
            client.post(b"repeat")
            await looks_up.begun(n)
            looks_up.ends[-1].set_result(WholeAnswer(b"found", [(b"x-n", b"%d" % n)]))
            assert b"x-n: %d\r\n" % n in await client.answer(b"found")
    assert app.scopes == []


async def test_what_comes_meanwhile_is_answered_after_it():
    looks_up, app = LooksUp(), Served()
    async with connected(looks_up, app) as client:
        client.post(b"first", b"second", b"third")
        await looks_up.begun(1)
        await asyncio.sleep(0.05)
        assert app.scopes == []
        looks_up.ends[0].set_result(WholeAnswer(b"found", []))
        await client.answer(b"found")
        await client.answer(b"second")
        await client.answer(b"third")


async def test_what_was_not_found_is_served_as_usual_with_what_is_known_of_it():
    looks_up, app = LooksUp(), Served()
    async with connected(looks_up, app) as client:
        client.post(b"first", b"second")
        await looks_up.begun(1)
        looks_up.ends[0].set_result(EARLIER_WORK)
        await client.answer(b"first")
        await client.answer(b"second")
    assert [scope.get(EARLIER) for scope in app.scopes] == [EARLIER_WORK, None]
    assert {scope["path"] for scope in app.scopes} == {"/asked"}


async def test_a_lookup_that_fails_unexpectedly_is_served_as_usual():
    looks_up, app = LooksUp(), Served()
    async with connected(looks_up, app) as client:
        client.post(b"repeat")
        await looks_up.begun(1)
        looks_up.ends[0].set_exception(ValueError("a bug"))
        await client.answer(b"repeat")
    assert app.scopes[0][EARLIER].repeated is None


async def test_a_connection_that_is_to_end_is_closed_after_the_answer():
    looks_up, app = LooksUp(), Served()
    async with connected(looks_up, app) as client:
        client.post(b"repeat")
        await looks_up.begun(1)
        client.protocol.shutdown()
        looks_up.ends[0].set_result(WholeAnswer(b"found", []))
        assert b"connection: close\r\n" in await client.answer(b"found")
        async with asyncio.timeout(10):
            assert await client.reader.read() == b""


async def test_a_client_that_leaves_during_the_lookup_leaves_nothing_behind():
    looks_up, app = LooksUp(), Served()
    async with connected(looks_up, app) as client:
        client.post(b"repeat")
        await looks_up.begun(1)
        client.writer.close()
        tasks, connections = client.protocol.tasks, client.protocol.connections
        async with asyncio.timeout(10):
            while connections:
                await asyncio.sleep(0.001)
        looks_up.ends[0].set_result(WholeAnswer(b"found", []))
        async with asyncio.timeout(10):
            while tasks:
                await asyncio.sleep(0.001)
