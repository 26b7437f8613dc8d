"""A server that refuses, fails and comes back: what a client of any provider has to survive."""

import asyncio
import time

import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from cacheproxy.errors import BadRequest
from cacheproxy.ingest import IngestStopped, Limits, RemoteEmbedder, embeddings


class Provider:
    """Embeds every text as (its length, 1); `script` has (status, headers) of the next answers."""

    def __init__(self) -> None:
        self.script: list[tuple[int, dict[str, str]]] = []
        self.asked_at: list[float] = []
        self.texts: list[list[str]] = []
        self.flying = self.most_flying = 0
        self.overlapped = asyncio.Event()
        self.waits_for_another = False

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.asked_at.append(time.monotonic())
        self.texts.append(body["input"])
        self.flying += 1
        self.most_flying = max(self.most_flying, self.flying)
        if self.flying > 1:
            self.overlapped.set()
        if self.waits_for_another:
            async with asyncio.timeout(30):
                await self.overlapped.wait()
        self.flying -= 1
        if self.script:
            status, headers = self.script.pop(0)
            return web.json_response(
                {"error": {"message": "later"}}, status=status, headers=headers
            )
        bad = [text for text in body["input"] if "bad" in text]
        if bad:
            return web.json_response({"error": {"message": "a bad text"}}, status=400)
        data = [
            {"index": i, "embedding": [float(len(text)), 1.0]}
            for i, text in enumerate(body["input"])
        ]
        return web.json_response({"data": data[::-1]})


@pytest.fixture
async def provider():
    made = Provider()
    app = web.Application()
    app.router.add_post("/v1/embeddings", made.answer)
    async with TestServer(app) as server:
        made.url = str(server.make_url("/"))
        yield made


async def embed(provider, texts, give_up_s=60.0):
    async with RemoteEmbedder(provider.url, model="any", give_up_s=give_up_s) as embedder:
        limits = Limits(batch_tokens=64, in_flight=4, request_texts=4)
        return [one async for one in embeddings(texts, embedder, limits=limits)]


async def test_vectors_come_in_the_order_of_the_texts_with_several_requests_in_flight(provider):
    texts = ["x" * i for i in range(1, 60)]
    provider.waits_for_another = True

    found = await embed(provider, texts)

    assert [one.vector.tolist() for one in found] == [[i, 1] for i in range(1, 60)]
    assert 1 < provider.most_flying <= 4
    assert max(map(len, provider.texts)) <= 4


async def test_retry_after_is_obeyed_by_all_requests(provider):
    provider.script = [(429, {"Retry-After": "1"})]

    found = await embed(provider, ["one"])
    first, second = provider.asked_at

    assert found[0].vector is not None
    assert second - first >= 1


async def test_failures_of_the_server_are_survived(provider):
    provider.script = [(503, {}), (500, {}), (502, {}), (429, {"Retry-After": "0"}), (504, {})]

    found = await embed(provider, [f"text {i}" for i in range(9)])

    assert all(one.vector is not None for one in found)


async def test_a_bad_text_is_found_and_costs_no_other(provider):
    texts = [f"text {i}" for i in range(20)]
    texts[3], texts[17] = "bad", "bad too"

    found = await embed(provider, texts)

    assert [i for i, one in enumerate(found) if one.vector is None] == [3, 17]
    assert found[3].reason == "a bad text"
    assert np.isfinite([one.vector for one in found if one.vector is not None]).all()


async def test_a_server_that_never_recovers_stops_the_work(provider):
    provider.script = [(503, {})] * 10_000

    with pytest.raises(IngestStopped, match="no answer"):
        await embed(provider, ["text"], give_up_s=0.2)


async def test_a_wrong_key_stops_the_work_at_once(provider):
    provider.script = [(401, {})]

    with pytest.raises(BadRequest):
        await embed(provider, ["text"])
    assert len(provider.texts) == 1


async def test_the_breaker_lets_few_requests_through_while_the_server_fails(provider):
    provider.script = [(502, {})] * 8

    found = await embed(provider, [f"text {i}" for i in range(200)])

    assert all(one.vector is not None for one in found)
    assert len(provider.texts) <= 200 // 4 + 8 + 4


async def test_texts_may_come_asynchronously(provider):
    async def texts():
        for i in range(10):
            await asyncio.sleep(0)
            yield "x" * (i + 1)

    found = await embed(provider, texts())

    assert [one.vector[0] for one in found] == list(range(1, 11))
