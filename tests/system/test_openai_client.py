"""The official client gets what it expects, in every form of input and output."""

import base64
import json

import numpy as np
import openai
import pytest

MODEL = "all-MiniLM-L6-v2"


@pytest.fixture
def client(server):
    return server.client()


def vectors(response) -> np.ndarray:
    return np.array([item.embedding for item in response.data], np.float32)


def test_a_string_gives_one_unit_vector_and_the_tokens_that_were_read(client):
    response = client.embeddings.create(input="The quick brown fox", model=MODEL)

    assert response.object == "list"
    assert response.model == MODEL
    assert [item.index for item in response.data] == [0]
    assert vectors(response).shape == (1, 384)
    assert np.linalg.norm(vectors(response)) == pytest.approx(1, abs=1e-5)
    assert response.usage.prompt_tokens == response.usage.total_tokens == 6


def test_a_list_keeps_its_order_cached_or_not(client):
    texts = [f"sentence number {i} about topic {i % 7}" for i in range(40)]
    client.embeddings.create(input=texts[::3], model=MODEL)

    batch = vectors(client.embeddings.create(input=texts, model=MODEL))

    alone = [vectors(client.embeddings.create(input=text, model=MODEL))[0] for text in texts]
    assert np.array_equal(batch, np.array(alone))


def test_token_ids_are_the_text_that_they_spell(client, installed):
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(installed.tokenizer_json.decode())
    tokenizer.no_padding()
    texts = ["how do I reset my password?", "a second, longer text that is about something else"]
    with_specials = [tokenizer.encode(text).ids for text in texts]
    without = [ids[1:-1] for ids in with_specials]
    expected = vectors(client.embeddings.create(input=texts, model=MODEL))

    for ids in (with_specials, without):
        raw = client.embeddings.with_raw_response.create(input=ids, model=MODEL)
        assert np.array_equal(vectors(raw.parse()), expected)
        assert "hit" in raw.headers["cache-status"]
    one = client.embeddings.create(input=with_specials[0], model=MODEL)
    assert np.array_equal(vectors(one)[0], expected[0])


def test_float_and_base64_are_the_same_numbers(client):
    floats = client.embeddings.create(input="numbers", model=MODEL, encoding_format="float")
    coded = client.embeddings.with_raw_response.create(
        input="numbers", model=MODEL, encoding_format="base64"
    )

    text = json.loads(coded.content)["data"][0]["embedding"]
    decoded = np.frombuffer(base64.b64decode(text), "<f4")
    assert np.array_equal(np.array(floats.data[0].embedding, np.float32), decoded)


@pytest.mark.parametrize("dimensions", [1, 64, 384])
def test_dimensions_cuts_and_renormalises(client, dimensions):
    full = vectors(client.embeddings.create(input="cut me", model=MODEL))[0]
    cut = vectors(client.embeddings.create(input="cut me", model=MODEL, dimensions=dimensions))[0]

    assert cut.shape == (dimensions,)
    expected = full[:dimensions] / np.linalg.norm(full[:dimensions])
    assert cut == pytest.approx(expected, abs=1e-6)


def test_a_long_text_is_cut_at_the_models_length_and_its_usage_says_so(client):
    response = client.embeddings.create(input="word " * 3_000, model=MODEL)

    assert response.usage.prompt_tokens == 256


def test_the_asynchronous_client_works_too(server):
    import asyncio

    async def ask():
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="x") as client:
            asked = [client.embeddings.create(input=f"async {i}", model=MODEL) for i in range(20)]
            return await asyncio.gather(*asked)

    assert len(asyncio.run(ask())) == 20


def test_the_models_that_are_served_are_listed(client):
    listed = client.models.list().data

    assert [model.id for model in listed] == [MODEL]


def test_a_server_without_an_upstream_or_a_reranker_says_what_its_absent_paths_need(client, server):
    with pytest.raises(openai.NotFoundError, match="--upstream"):
        client.chat.completions.create(model="gpt-4o-mini", messages=[])
    with pytest.raises(openai.NotFoundError, match="--upstream"):
        client.moderations.create(input="x")
    for path in ("/v1/rerank", "/v2/rerank", "/rerank"):
        refused = server.http.post(path, json={"query": "q", "documents": ["d"]})
        assert refused.status_code == 404
        assert "needs a reranker, --model" in refused.json()["error"]["message"]
    assert "needs" not in server.http.get("/nowhere").json()["error"]["message"]


def test_a_hub_style_name_and_a_configured_alias_reach_the_model(start_server, tmp_path):
    config = tmp_path / "cacheproxy.toml"
    config.write_text(f'[model_aliases]\n"text-embedding-3-small" = "{MODEL}"\n')
    client = start_server("--config", str(config)).client()

    for name in (f"sentence-transformers/{MODEL}", "text-embedding-3-small"):
        assert client.embeddings.create(input="hello", model=name).model == MODEL


def test_the_plain_embed_form(server):
    texts = ["one text", "another text"]
    answer = server.http.post("/embed", json={"texts": texts}).json()

    expected = vectors(server.client().embeddings.create(input=texts, model=MODEL))
    assert set(answer) == {"embeddings", "model", "latency_ms"}
    assert answer["model"] == MODEL
    assert answer["latency_ms"] >= 0
    assert np.array_equal(np.array(answer["embeddings"], np.float32), expected)


@pytest.mark.parametrize("inputs", ["one text", ["one text", "another text"]])
def test_the_text_embeddings_inference_form(server, inputs):
    answer = server.http.post("/embed", json={"inputs": inputs}).json()

    expected = vectors(server.client().embeddings.create(input=inputs, model=MODEL))
    assert np.array_equal(np.array(answer, np.float32), expected)


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_health_and_readiness_answer(server, path):
    assert server.http.get(path).status_code == 200


def test_metrics_are_served_in_the_prometheus_format(server):
    assert server.http.get("/metrics").headers["content-type"].startswith("text/plain")
    assert server.metric("build_info", model=MODEL) == 1
