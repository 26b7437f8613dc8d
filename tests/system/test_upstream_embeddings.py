"""Embeddings by upstreams: their own models, and the local one's stand-ins."""

import base64
import hashlib
import json
from collections.abc import Iterator

import numpy as np
import pytest
from asking import MODEL, wait_until
from server_process import Server
from upstream import Upstream, says

THEIRS, DIMENSIONS = "text-embedding-theirs", 12


def vector_of(given, dimensions=DIMENSIONS):
    seed = hashlib.sha256(json.dumps(given).encode()).digest()[:8]
    rng = np.random.default_rng(int.from_bytes(seed, "big"))
    vector = rng.normal(size=dimensions).astype(np.float32)
    return vector / np.linalg.norm(vector)


async def embeds(exchange):
    """Answer as an embeddings server does, in any order."""
    body = exchange.asked.body
    dimensions = DIMENSIONS if body["model"] == THEIRS else 384
    data = [
        {"object": "embedding", "index": i, "embedding": vector_of(given, dimensions).tolist()}
        for i, given in enumerate(body["input"])
    ]
    usage = {"prompt_tokens": 7 * len(data), "total_tokens": 7 * len(data)}
    answer = {"object": "list", "data": data[::-1], "model": body["model"], "usage": usage}
    await exchange.answer(200, json.dumps(answer).encode())


@pytest.fixture(autouse=True)
def _embeds(_as_scripted, upstream):
    upstream.always = embeds


@pytest.fixture(scope="module")
def config(upstream, tmp_path_factory):
    path = tmp_path_factory.mktemp("embeddings") / "cacheproxy.toml"
    path.write_text(
        f'[upstreams.main]\nbase_url = "{upstream.url}"\napi_key = "sk-ours"\n'
        f'[upstreams.main.embeddings]\n"{THEIRS}" = {DIMENSIONS}\n'
        f'[model_aliases]\n"their-alias" = "{THEIRS}"\n'
    )
    return path


@pytest.fixture(scope="module")
def server(model_home, config) -> Iterator[Server]:
    flags = ("--config", str(config), "--semantic-threshold", "0.93")
    server = Server(model_home, "memory://", "--drain-s", "0", *flags)
    yield server
    assert server.stop() == 0, server.log


def ask(server, given, model=THEIRS, **headers):
    body = {"input": given, "model": model, "encoding_format": "base64"}
    return server.http.post("/v1/embeddings", json=body, headers=headers)


def vectors(response):
    assert response.status_code == 200, response.text
    return [
        np.frombuffer(base64.b64decode(item["embedding"]), "<f4")
        for item in response.json()["data"]
    ]


def test_vectors_are_the_upstreams_and_then_the_caches(server, upstream):
    texts = ["one text", "another text", "one text"]
    first, asked = ask(server, texts), len(upstream)
    again = ask(server, texts)

    assert all(np.array_equal(a, vector_of(b)) for a, b in zip(vectors(first), texts, strict=True))
    assert [v.tobytes() for v in vectors(again)] == [v.tobytes() for v in vectors(first)]
    assert "detail=hot" in again.headers["cache-status"]
    assert len(upstream) == asked
    sent = upstream.last
    assert sent.body["input"] == ["one text", "another text"]
    assert sent.headers["authorization"] == "Bearer sk-ours"


def test_usage_is_the_upstreams(server):
    texts = ["a", "a longer text than that", "and one more"]

    usage = ask(server, texts).json()["usage"]

    assert usage == {"prompt_tokens": 21, "total_tokens": 21}


def test_a_text_is_known_by_its_very_bytes(server):
    for text in ("How is this", "how is this", "How  is this"):
        assert "fwd=miss" in ask(server, text).headers["cache-status"]


def test_token_ids_are_passed_on_as_they_are(server, upstream):
    ids = [[100_000, 2, 3], [4, 5]]

    found = vectors(ask(server, ids))

    assert upstream.last.body["input"] == ids
    assert np.array_equal(found[0], vector_of(ids[0]))
    assert "detail=hot" in ask(server, ids).headers["cache-status"]


def test_an_alias_and_the_official_client_reach_the_model(server):
    answer = server.client().embeddings.create(input="by an alias", model="their-alias")

    assert np.allclose(answer.data[0].embedding, vector_of("by an alias"))
    listed = [model.id for model in server.client().models.list()]
    assert listed == [MODEL, THEIRS]


def test_neighbours_are_found_by_the_local_model(server):
    def settled():
        return server.metric("writeback_queue_entries") == 0

    ask(server, "How do I reset my password on this website?")
    wait_until(settled)
    near = ask(server, "how do I reset my password on this website")

    assert "detail=semantic" in near.headers["cache-status"]
    expected = vector_of("How do I reset my password on this website?")
    assert np.array_equal(vectors(near)[0], expected)


def test_errors_are_told_and_nothing_is_stored(server, upstream):
    busy = b'{"error": {"message": "slow down", "code": "rate_limit"}}'
    upstream.plan.append(says(429, busy, retry_after="9"))
    refused = ask(server, "refused")
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "9")
    assert refused.json()["error"]["message"] == "slow down"

    for answer in (
        b"{",
        b'{"data": []}',
        b'{"data": [{"index": 0, "embedding": [1, 2]}]}',
        json.dumps({"data": [{"index": 0, "embedding": [0] * DIMENSIONS}]}).encode(),
    ):
        upstream.plan.append(says(200, answer))
        failed = ask(server, "refused")
        assert failed.status_code == 502
        assert failed.json()["error"]["code"] == "upstream_malformed"
    assert "fwd=miss" in ask(server, "refused").headers["cache-status"]


def test_there_is_no_chat_where_upstreams_have_embeddings_only(server):
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}

    assert server.http.post("/v1/chat/completions", json=body).status_code == 404


def test_the_local_engine_stands_in_for_an_upstream_of_the_same_model(start_server, tmp_path):
    upstream = Upstream()
    upstream.always = embeds
    config = tmp_path / "cacheproxy.toml"
    config.write_text(
        f'[upstreams.main]\nbase_url = "{upstream.url}"\nbefore_local = true\n'
        f'embeddings = {{ "{MODEL}" = 384 }}\n'
    )
    server = start_server("--config", str(config), "--semantic-mode", "off")
    theirs = ask(server, "by them", MODEL)
    assert np.array_equal(vectors(theirs)[0], vector_of("by them", 384))
    assert "stored" in theirs.headers["cache-status"]

    upstream.vanish()
    ours = ask(server, "by us", MODEL)
    again = ask(server, "by us", MODEL)

    assert len(vectors(ours)[0]) == 384
    assert not np.array_equal(vectors(ours)[0], vector_of("by us", 384))
    assert "stored" not in ours.headers["cache-status"]
    assert "fwd=miss" in again.headers["cache-status"]
    assert "hit" in ask(server, "by them", MODEL).headers["cache-status"]
    upstream.stop()


def test_dimensions_that_do_not_fit_the_local_model_are_a_mistake(model_home, tmp_path):
    from asking import run

    config = tmp_path / "cacheproxy.toml"
    config.write_text(
        f'[upstreams.main]\nbase_url = "http://127.0.0.1:9/v1"\nembeddings = {{ "{MODEL}" = 12 }}\n'
    )

    place = ("--port", "0", "--home", str(model_home), "--store", "memory://")
    done = run("serve", *place, "--config", str(config))

    assert done.returncode == 2
    assert "has 384 dimensions, not 12" in done.stderr
