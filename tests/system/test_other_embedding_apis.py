"""text-embeddings-inference's and Ollama's APIs, spoken by unmodified clients of both."""

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
