"""Answers with thousands of vectors leave in pieces, and are what they would be as a whole."""

import asyncio
import json
import time

import numpy as np
import pytest

from cacheproxy.api.dialects.embedding import Asked
from cacheproxy.api.dialects.openai import PIECE, OpenAIDialect
from cacheproxy.api.response import send_json
from cacheproxy.concurrency.parts import in_parts
from cacheproxy.records import EmbeddingRecord
from cacheproxy.routes.exchange import ItemsResult, ModelInfo, Served

MODEL = ModelInfo("a model", (), "f", 2)


async def body_of(texts: int) -> tuple[dict, list[dict]]:
    """Return the body of an answer with this many vectors, and the messages it was sent in."""
    now = time.time()
    served = [
        Served(
            EmbeddingRecord(
                "0" * 32, b"k" * 32, now, now + 9, 3, np.array([i, 1], "<f4").tobytes()
            ),
            "miss",
        )
        for i in range(texts)
    ]
    body = await OpenAIDialect().render(Asked([""] * texts), ItemsResult(served, {}), MODEL, 0.0)
    sent = []

    async def send(message):
        sent.append(message)

    await send_json(send, 200, body, [])
    return json.loads(b"".join(one["body"] for one in sent[1:])), sent


@pytest.mark.parametrize("texts", [1, PIECE, PIECE + 1, 3 * PIECE])
async def test_every_vector_is_in_its_place_however_many_there_are(texts):
    body, sent = await body_of(texts)

    assert [one["index"] for one in body["data"]] == list(range(texts))
    assert [one["embedding"] for one in body["data"]] == [[i, 1] for i in range(texts)]
    assert body["usage"] == {"prompt_tokens": 3 * texts, "total_tokens": 3 * texts}
    length = dict(sent[0]["headers"])[b"content-length"]
    assert int(length) == sum(len(one["body"]) for one in sent[1:])
    assert [one.get("more_body", False) for one in sent[1:]] == [True] * (len(sent) - 2) + [False]
    assert (len(sent) > 2) == (texts > PIECE)


async def test_others_have_their_turn_between_the_parts_of_long_work():
    parts, turns = [], []

    async def other() -> None:
        while True:
            turns.append(len(parts))
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    await in_parts(range(300), lambda part: parts.append(list(part)))
    task.cancel()

    assert [one for part in parts for one in part] == list(range(300))
    assert len(parts) > 2
    assert set(turns) >= set(range(1, len(parts)))
