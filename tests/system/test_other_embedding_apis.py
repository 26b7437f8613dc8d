"""text-embeddings-inference's, Ollama's and Cohere's APIs, spoken by their unmodified clients."""

import base64

import cohere
import huggingface_hub.errors
import numpy as np
import ollama
import pytest
from huggingface_hub import InferenceClient

MODEL = "all-MiniLM-L6-v2"
TEXTS = ["What is a cache?", "What does a cache do?", "How tall is the Eiffel Tower?"]


@pytest.fixture(scope="module")
def vectors(server):
    """What `/v1/embeddings` gives for the texts: float32 [texts, dimensions]."""
    answer = server.client().embeddings.create(model=MODEL, input=TEXTS)
    return np.array([one.embedding for one in answer.data], np.float32)


@pytest.fixture(scope="module")
def ollama_client(server):
    return ollama.Client(server.url)


@pytest.mark.parametrize("path", ["", "/embed"])
def test_inference_client_extracts_features(server, vectors, path):
    client = InferenceClient(server.url + path)

    assert np.array_equal(client.feature_extraction(TEXTS), vectors)
    assert np.array_equal(client.feature_extraction(TEXTS[0], normalize=True), vectors[:1])


@pytest.mark.parametrize("path", ["", "/similarity"])
def test_inference_client_compares_sentences(server, vectors, path):
    client = InferenceClient(server.url + path)

    found = client.sentence_similarity(TEXTS[0], other_sentences=TEXTS[1:])

    assert found == pytest.approx((vectors[1:] @ vectors[0]).tolist(), abs=1e-6)
    assert found[0] > 0.8 > 0.2 > found[1]


def test_compared_texts_share_their_entries_with_all_other_routes(server, vectors):
    inputs = {"source_sentence": TEXTS[0], "sentences": TEXTS[1:]}

    answer = server.http.post("/similarity", json={"inputs": inputs})

    assert answer.headers["cache-status"].startswith("cacheproxy; hit")


def test_what_text_embeddings_inference_could_do_and_is_not_done_here_is_refused(server):
    client = InferenceClient(server.url)

    for option in ({"truncate": False}, {"truncation_direction": "left"}, {"normalize": False}):
        with pytest.raises(huggingface_hub.errors.BadRequestError):
            client.feature_extraction("anything", **option)
    for options in ({"truncate": False}, {"truncation_direction": "Left"}):
        inputs = {"source_sentence": "a", "sentences": ["b"]}
        body = {"inputs": inputs, "parameters": options}
        assert server.http.post("/similarity", json=body).status_code == 400


def test_tokens_are_the_models_with_their_places_and_none_is_cut_off(server):
    text = "Ünder the sea! " * 100
    body = {"inputs": [text, "b"]}

    whole, short = server.http.post("/tokenize", json=body).json()
    bare, _ = server.http.post("/tokenize", json=body | {"add_special_tokens": False}).json()

    assert [token["text"] for token in short] == ["[CLS]", "b", "[SEP]"]
    assert [token["special"] for token in short] == [True, False, True]
    assert len(whole) == 402
    assert whole[1:-1] == bare
    assert all(text[token["start"] : token["stop"]] == token["text"] for token in bare)


def test_a_text_that_would_make_a_very_long_list_of_tokens_is_refused(server):
    assert server.http.post("/tokenize", json={"inputs": ["a" * 30_000] * 10}).status_code == 413


def test_info_tells_the_model_and_its_limits(server):
    info = server.http.get("/info").json()

    assert (info["model_id"], info["max_input_length"]) == (MODEL, 256)
    assert info["model_type"] == {"embedding": {"pooling": "mean"}}
    assert info["max_client_batch_size"] == 2_048
    assert server.http.get("/health").status_code == 200


def test_the_ollama_client_embeds(server, ollama_client, vectors):
    several = ollama_client.embed(f"{MODEL}:latest", TEXTS)
    one = ollama_client.embed(f"sentence-transformers/{MODEL}", TEXTS[0])
    cut = ollama_client.embed(MODEL, TEXTS[0], dimensions=96)
    older = ollama_client.embeddings(MODEL, TEXTS[0])

    assert np.array_equal(np.array(several.embeddings, np.float32), vectors)
    assert np.array_equal(np.array(one.embeddings, np.float32), vectors[:1])
    assert np.array_equal(np.array(older.embedding, np.float32), vectors[0])
    assert len(cut.embeddings[0]) == 96
    assert several.model == MODEL
    usage = server.client().embeddings.create(model=MODEL, input=TEXTS).usage
    assert several.prompt_eval_count == usage.prompt_tokens
    assert several.total_duration > 0


def test_the_ollama_client_lists_and_shows_what_embeds(ollama_client, server):
    (listed,) = ollama_client.list().models
    shown = ollama_client.show(f"{MODEL}:latest")

    assert (listed.model, listed.details.quantization_level) == (MODEL, "int8")
    assert shown.capabilities == ["embedding"]
    architecture = shown.modelinfo["general.architecture"]
    assert shown.modelinfo[f"{architecture}.context_length"] == 256
    assert server.http.get("/api/version").json()["version"]


@pytest.mark.parametrize("ask", ["embed", "embeddings", "show"])
def test_the_ollama_client_is_told_of_a_model_that_is_not_served(ollama_client, ask):
    arguments = ["no-such-model"] if ask == "show" else ["no-such-model", "text"]

    with pytest.raises(ollama.ResponseError) as missing:
        getattr(ollama_client, ask)(*arguments)

    assert missing.value.status_code == 404
    assert "served" in str(missing.value)


@pytest.fixture(scope="module")
def cohere_client(server):
    return cohere.ClientV2(api_key="unused", base_url=server.url)


def by_type(server, dtype):
    """Return what `/v1/embeddings` gives in a type."""
    body = {"model": MODEL, "input": TEXTS, "output_dtype": dtype}
    answer = server.http.post("/v1/embeddings", json=body).json()
    return [one["embedding"] for one in answer["data"]]


def test_the_cohere_client_embeds_in_every_type_at_once(server, cohere_client, vectors):
    types = ["float", "int8", "uint8", "binary", "ubinary", "base64"]

    answer = cohere_client.embed(
        model=MODEL, texts=TEXTS, input_type="search_document", embedding_types=types
    )

    given = answer.embeddings
    assert answer.texts == TEXTS
    assert answer.response_type == "embeddings_by_type"
    assert np.array_equal(np.array(given.float_, np.float32), vectors)
    for dtype in types[1:-1]:
        assert getattr(given, dtype) == by_type(server, dtype)
    decoded = [np.frombuffer(base64.b64decode(one), "<f4") for one in given.base64]
    assert np.array_equal(decoded, vectors)
    usage = server.client().embeddings.create(model=MODEL, input=TEXTS).usage
    assert answer.meta.billed_units.input_tokens == usage.prompt_tokens


def test_the_cohere_client_embeds_with_its_defaults(server, cohere_client, vectors):
    answer = cohere_client.embed(model=MODEL, texts=TEXTS, input_type="search_query")
    first_version = cohere.Client(api_key="unused", base_url=server.url)
    older = first_version.embed(texts=TEXTS, model=MODEL, input_type="search_query")
    typed = first_version.embed(texts=TEXTS, model=MODEL, embedding_types=["int8"])

    assert np.array_equal(np.array(answer.embeddings.float_, np.float32), vectors)
    assert answer.embeddings.int8 is None
    assert older.response_type == "embeddings_floats"
    assert older.texts == TEXTS
    assert np.array_equal(np.array(older.embeddings, np.float32), vectors)
    assert typed.embeddings.int8 == by_type(server, "int8")


def test_the_cohere_client_gets_shorter_vectors(cohere_client, vectors):
    answer = cohere_client.embed(
        model=MODEL, texts=TEXTS[:1], input_type="search_query", output_dimension=64
    )

    (given,) = answer.embeddings.float_
    cut = vectors[0, :64]
    assert np.allclose(given, cut / np.linalg.norm(cut), atol=1e-6)


@pytest.mark.parametrize(
    "more",
    [
        {"truncate": "NONE"},
        {"truncate": "START"},
        {"max_tokens": 8},
        {"embedding_types": ["float", "binary"], "output_dimension": 33},
        {"images": ["data:image/png;base64,AAAA"]},
        {"inputs": [{"content": [{"type": "text", "text": "a"}]}]},
    ],
)
@pytest.mark.parametrize("path", ["/v1/embed", "/v2/embed"])
def test_what_cohere_could_do_and_is_not_done_here_is_refused(server, path, more):
    answer = server.http.post(path, json={"model": MODEL, "texts": ["a"], **more})

    assert answer.status_code in (400, 422)
    assert next(iter(more)) in answer.text or "dimensions" in answer.text
