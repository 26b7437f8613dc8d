"""A steady load on a server, of which every answer is checked."""

import asyncio
import itertools
import json
import re
import statistics
import time
from dataclasses import dataclass

import aiohttp

MODEL = "all-MiniLM-L6-v2"
TEXTS = [
    f"how do I {verb} my {noun} on the website of the shop"
    for verb in ("reset", "change", "forget", "share", "print")
    for noun in ("password", "address", "invoice", "order")
]
KNOWN = "known"

_CLIENTS = 3
_PAUSE_S = 0.02
_STAGE = re.compile(r"(\w+);dur=([\d.]+)")


@dataclass(frozen=True)
class Answer:
    """What was asked, when the answer came (monotonic, seconds), and what it says of itself."""

    is_known: bool
    at: float
    cache_status: str
    store_ms: float


class SteadyLoad:
    """Asks for known texts and, in namespaces never used before, for new ones, in turn.

    Used as an async context manager; leaving it fails if any answer was not 200 and right.
    """

    _namespaces = itertools.count()

    def __init__(self, url: str, truth: dict[str, str]):
        self._url = url
        self._truth = truth
        self.answers: list[Answer] = []
        self._wrong: list[str] = []

    async def __aenter__(self):
        self._http = aiohttp.ClientSession(self._url, timeout=aiohttp.ClientTimeout(60))
        self._tasks = [asyncio.create_task(self._ask_on(n)) for n in range(_CLIENTS)]
        return self

    async def __aexit__(self, *_):
        for task in self._tasks:
            task.cancel()
        ended = await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._http.close()
        assert all(isinstance(error, asyncio.CancelledError) for error in ended), ended
        assert self._wrong == []

    async def _ask_on(self, first: int) -> None:
        for n in itertools.count(first):
            await self._ask(TEXTS[n % len(TEXTS)], is_known=n // _CLIENTS % 2 == 0)
            await asyncio.sleep(_PAUSE_S)

    async def _ask(self, text: str, *, is_known: bool) -> None:
        namespace = KNOWN if is_known else f"new-{next(self._namespaces)}"
        body = {"input": text, "model": MODEL, "encoding_format": "base64"}
        headers = {"x-cacheproxy-namespace": namespace}
        async with self._http.post("/v1/embeddings", json=body, headers=headers) as response:
            content = await response.text()
        if response.status != 200:
            self._wrong.append(f"{response.status}: {content}")
        elif json.loads(content)["data"][0]["embedding"] != self._truth[text]:
            self._wrong.append(f"another vector than without a cache: {response.headers}")
        else:
            stages = dict(_STAGE.findall(response.headers["server-timing"]))
            store_ms = float(stages.get("exact", 0)) + float(stages.get("semantic", 0))
            status = response.headers["cache-status"]
            self.answers.append(Answer(is_known, time.monotonic(), status, store_ms))

    async def until(self, condition, what: str) -> None:
        """Wait until the condition, a function, holds, while the load goes on."""
        deadline = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline, f"waited in vain for {what}"
            await asyncio.sleep(0.02)

    async def run(self, seconds: float) -> list[Answer]:
        """Let the load go on for so long; return the answers of that time."""
        start = len(self.answers)
        await asyncio.sleep(seconds)
        return self.answers[start:]

    async def until_hits(self) -> None:
        """Wait until all known texts, one after the other, come from the store again."""

        def all_hit() -> bool:
            known = [answer for answer in self.answers[start:] if answer.is_known]
            last = known[-len(TEXTS) :]
            return len(last) == len(TEXTS) and all("exact" in one.cache_status for one in last)

        start = len(self.answers)
        await self.until(all_hit, "hits of all known texts")


def median_store_ms(answers: list[Answer]) -> float:
    """Return the median time that the answers waited for the store."""
    return statistics.median(answer.store_ms for answer in answers)


async def ask_without_cache(url: str) -> dict[str, str]:
    """Return what the server answers for each text if it looks nothing up."""
    body = {"input": TEXTS, "model": MODEL, "encoding_format": "base64"}
    headers = {"cache-control": "no-store"}
    async with (
        aiohttp.ClientSession(url) as http,
        http.post("/v1/embeddings", json=body, headers=headers) as response,
    ):
        told = await response.json()
    vectors = [item["embedding"] for item in told["data"]]
    return dict(zip(TEXTS, vectors, strict=True))
