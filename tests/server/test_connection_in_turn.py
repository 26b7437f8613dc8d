"""A flood on many connections leaves the event loop to other tenants after a moment."""

import asyncio
import socket

import uvloop
from http_connections import answering_nothing_at_once, maker_of_connections

from cacheproxy.api.repeated.at_once import WholeAnswer
from cacheproxy.fairness.loop_turns import LoopTurns

PIPELINED, FLOODING = 8, 30


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Hits:
    """Answers at once; each answer takes 0.1 ms of the clock's time."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.answered: list[bytes] = []

    def knows(self, body: bytes) -> bool:
        return True

    def at_once(self, visit, body: bytes) -> WholeAnswer:
        self.answered.append(visit.headers[b"x-api-key"])
        self.clock.now += 1e-4
        return WholeAnswer(b"{}", [(b"content-length", b"2")])


def request(owner: str, more: str = "") -> bytes:
    return f"POST /hits HTTP/1.1\r\nhost: here\r\nx-api-key: {owner}\r\n{more}\r\n".encode()


async def serving(turns: LoopTurns, hits: Hits, flood: bytes) -> list[bytes]:
    """Return whose requests were answered, in their order, if both tenants' arrive together."""
    at_once = answering_nothing_at_once()
    at_once.add("/hits", hits)
    make = maker_of_connections(
        lambda: None,
        at_once,
        turns=turns,
        owner_of=lambda headers: dict(headers)[b"x-api-key"].decode(),
    )
    server = await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0)
    owners = ["flooding"] * FLOODING + ["quiet"]
    clients = [socket.create_connection(server.sockets[0].getsockname()) for _ in owners]
    for client, owner in zip(clients, owners, strict=True):
        client.sendall(request(owner, "content-length: 0\r\n"))
    while len(hits.answered) < len(clients):
        await asyncio.sleep(0.01)
    hits.answered.clear()
    for client in clients[:-1]:
        client.sendall(flood)
    clients[-1].sendall(request("quiet", "content-length: 0\r\n"))
    for client in clients:
        client.shutdown(socket.SHUT_WR)  # what came before the end is answered, too
    async with asyncio.timeout(20):
        while len(hits.answered) < FLOODING * PIPELINED + 1:
            await asyncio.sleep(0.01)
    for client in clients:
        client.close()
    server.close()
    return hits.answered


def test_another_tenant_s_request_does_not_wait_for_a_whole_flood():
    clock = Clock()
    hits = Hits(clock)
    flood = request("flooding", "content-length: 0\r\n") * PIPELINED

    answered = uvloop.run(serving(LoopTurns(clock), hits, flood))

    assert answered.count(b"flooding") == FLOODING * PIPELINED
    # One round of a millisecond, and one turn of the flooding tenant's in the next.
    assert answered.index(b"quiet") <= 4 * PIPELINED
