"""What a hostile tenant does to a server that it shares: each attack in processes of its own.

In earnest a hostile client has a machine of its own, and what its requests cost the server is to be
measured, not what it costs to make them. So the processes take only time that nobody else wants:
they are scheduled as SCHED_IDLE, or where there is none, at the lowest priority, and whoever else
wakes up goes before them at once. What costs the server little is sent several requests at a time,
so that what is left suffices for a flood. What remains on a small machine: the caches of its cores,
and the kernel's work for their packets, are shared.
"""

import asyncio
import json
import multiprocessing
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple
from urllib.parse import urlsplit

_NICENESS = 19

_WORDS = [
    "account",
    "address",
    "invoice",
    "password",
    "camera",
    "router",
    "printer",
    "alarm",
    "ticket",
    "coupon",
    "station",
    "library",
    "garden",
    "harbour",
    "engine",
    "bottle",
    "window",
    "market",
    "planet",
    "river",
    "forest",
    "mountain",
    "island",
    "desert",
    "village",
    "bridge",
]

_LATENT_S = 0.05
"""Pause after a connection that was lost or refused."""


class Attack(NamedTuple):
    """One way of being hostile.

    Attributes:
        connections: that are used at the same time.
        make: returns the next request, given a source of chance.
        at_once: requests that a connection sends before it reads their answers.
    """

    connections: int
    make: Callable[[random.Random], "Sent"]
    at_once: int = 1


class Sent(NamedTuple):
    """One request: its body, and headers beside those that every request has."""

    body: bytes
    headers: tuple[tuple[str, str], ...] = ()
    path: str = "/v1/embeddings"


def sentence(draw: random.Random, words: int = 12) -> str:
    """Return a text that has most likely never been sent."""
    return " ".join(draw.choices(_WORDS, k=words)) + f" {draw.getrandbits(32)}"


def _embed(inputs: str | list[str], model: str = "all-MiniLM-L6-v2") -> bytes:
    return json.dumps({"model": model, "input": inputs}).encode()


_SAME = _embed("How do I reset my password on the website?")


def _near(draw: random.Random) -> str:
    """Return a near-duplicate of a question that the other tenant asks."""
    number = draw.randrange(200)
    return f"where can I find the {_WORDS[number % len(_WORDS)]} number {number} of my order please"


def _floods_hits(_: random.Random) -> Sent:
    return Sent(_SAME)


def _floods_misses(draw: random.Random) -> Sent:
    return Sent(_embed(sentence(draw)))


def _huge_batches(draw: random.Random) -> Sent:
    return Sent(_embed([sentence(draw) for _ in range(2_000)]))


def _names_without_end(draw: random.Random) -> Sent:
    tags = ",".join(f"t{draw.getrandbits(40):x}" for _ in range(16))
    headers = (
        ("X-Cacheproxy-Namespace", f"n{draw.getrandbits(48):x}"),
        ("X-Cacheproxy-Tags", tags),
    )
    return Sent(_embed([sentence(draw) for _ in range(8)]), headers)


def _models_without_end(draw: random.Random) -> Sent:
    name = f"m{draw.getrandbits(48):x}"
    return Sent(_embed("text", name), (("X-Request-Id", f"r{draw.getrandbits(48):x}"),))


def _near_duplicates(draw: random.Random) -> Sent:
    return Sent(_embed([_near(draw) + " " + draw.choice(_WORDS) for _ in range(4)]))


def _swollen_json(draw: random.Random) -> Sent:
    return Sent(b'{"model": "x", "input": [' + b"[]," * 300_000 + b"[%d]]}" % draw.getrandbits(32))


ATTACKS: dict[str, Attack] = {
    "floods hits": Attack(64, _floods_hits, at_once=8),
    "floods misses": Attack(64, _floods_misses),
    "huge batches": Attack(16, _huge_batches),
    "names without end": Attack(32, _names_without_end),
    "models without end": Attack(32, _models_without_end, at_once=8),
    "near-duplicates": Attack(32, _near_duplicates),
    "swollen JSON": Attack(8, _swollen_json),
}


@contextmanager
def under(name: str, url: str, api_key: str, seed: int) -> Iterator[None]:
    """Attack the server at a URL during the block."""
    attacker = multiprocessing.get_context("spawn").Process(
        target=_attack, args=(name, url, api_key, seed), daemon=True
    )
    attacker.start()
    try:
        yield
    finally:
        attacker.kill()
        attacker.join()


def _attack(name: str, url: str, api_key: str, seed: int) -> None:
    if hasattr(os, "SCHED_IDLE"):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    else:
        os.nice(_NICENESS)
    asyncio.run(_all_connections(ATTACKS[name], url, api_key, seed))


async def _all_connections(attack: Attack, url: str, api_key: str, seed: int) -> None:
    where = urlsplit(url)
    host, port = where.hostname or "", where.port or 80
    draws = [random.Random(f"{seed} {number}") for number in range(attack.connections)]  # noqa: S311
    await asyncio.gather(*(_ask_for_ever(attack, host, port, api_key, draw) for draw in draws))


async def _ask_for_ever(
    attack: Attack, host: str, port: int, api_key: str, draw: random.Random
) -> None:
    while True:
        try:
            reader, writer = await asyncio.open_connection(host, port)
            while True:
                sent = [_encoded(attack.make(draw), host, api_key) for _ in range(attack.at_once)]
                writer.write(b"".join(sent))
                await writer.drain()
                for _ in sent:
                    await _read_answer(reader)
        except (OSError, asyncio.IncompleteReadError, ValueError):
            await asyncio.sleep(_LATENT_S)


def _encoded(sent: Sent, host: str, api_key: str) -> bytes:
    lines = [
        f"POST {sent.path} HTTP/1.1",
        f"Host: {host}",
        f"Authorization: Bearer {api_key}",
        "Content-Type: application/json",
        f"Content-Length: {len(sent.body)}",
        *(f"{name}: {value}" for name, value in sent.headers),
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + sent.body


async def _read_answer(reader: asyncio.StreamReader) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.partition(b"content-length:")[2].split(b"\r\n", 1)[0])
    await reader.readexactly(length)
    if b"connection: close" in head:
        raise ConnectionResetError
