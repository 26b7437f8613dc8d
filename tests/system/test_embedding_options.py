"""Input types, number types and shorter vectors, in the words of several providers."""

import json
import shutil

import numpy as np
import openai
import pytest
from server_process import Server

from cacheproxy.api.presentation import quantize
from cacheproxy.inference.tokenizer import Tokenizer
from cacheproxy.modelkit.install import seal_of

MODEL = "all-MiniLM-L6-v2"
QUERY = "search for: "


@pytest.fixture(scope="module")
def prefixed_home(model_home, tmp_path_factory):
    """A home whose model is described as one trained with prefixes and for shorter vectors."""
    home = tmp_path_factory.mktemp("prefixed")
    folder = home / "models" / MODEL
    shutil.copytree(model_home / "models" / MODEL, folder)
    record = json.loads((folder / "model.json").read_text())
    record |= {"prefixes": {"query": QUERY, "document": ""}, "matryoshka": [128]}
    (folder / "model.json").write_text(json.dumps(record | {"seal": seal_of(record)}))
    return home


@pytest.fixture(scope="module")
def prefixed(prefixed_home):
    server = Server(prefixed_home, "memory://", "--drain-s", "0")
    yield server
    assert server.stop() == 0, server.log


def ask(server, given, status=200, **fields):
    body = {"model": MODEL, "input": given, **fields}
    answer = server.http.post("/v1/embeddings", json=body)
    assert answer.status_code == status, answer.text
    return answer


def vector(server, given, **fields) -> np.ndarray:
    (item,) = ask(server, given, **fields).json()["data"]
    return np.array(item["embedding"])


@pytest.mark.parametrize(
    "said",
    [
        {"input_type": "query"},
        {"input_type": "search_query"},
        {"task": "retrieval.query"},
        {"prompt_name": "query"},
    ],
)
def test_the_server_adds_the_models_prefix_for_a_query(prefixed, said):
    text = "what is a cache stampede?"

    assert np.array_equal(vector(prefixed, text, **said), vector(prefixed, QUERY + text))
    assert not np.array_equal(vector(prefixed, text, **said), vector(prefixed, text))


@pytest.mark.parametrize(
    "said",
    [
        {"input_type": "document"},
        {"input_type": "passage"},
        {"input_type": "search_document"},
        {"task": "retrieval.passage"},
        {"prompt_name": "document"},
    ],
)
def test_documents_get_the_prefix_of_documents_which_is_none_here(prefixed, said):
    text = "a cache stampede is many misses at once"

    assert np.array_equal(vector(prefixed, text, **said), vector(prefixed, text))


def test_a_query_and_a_document_of_the_same_words_are_two_entries(prefixed):
    text = "two entries"

    assert "fwd=miss" in ask(prefixed, text, input_type="query").headers["cache-status"]
    assert "fwd=miss" in ask(prefixed, text, input_type="document").headers["cache-status"]
    for input_type in ("query", "document"):
        assert "hit" in ask(prefixed, text, input_type=input_type).headers["cache-status"]


def test_the_prefix_goes_in_front_of_what_token_ids_stand_for_and_counts_as_usage(
    prefixed, installed
):
    text = "what is a cache stampede?"
    (ids,) = Tokenizer(installed.tokenizer_json, installed.max_tokens).encode([text])

    of_ids = ask(prefixed, ids, input_type="query").json()

    assert np.array_equal(of_ids["data"][0]["embedding"], vector(prefixed, QUERY + text))
    assert of_ids["usage"]["prompt_tokens"] == len(ids) + 3


def test_the_embed_routes_take_the_same_options(prefixed):
    body = {"inputs": ["a query"], "prompt_name": "query", "output_dtype": "int8"}
    given = prefixed.http.post("/embed", json=body).json()

    expected = quantize(vector(prefixed, QUERY + "a query").astype(np.float32), "int8")
    assert np.array_equal(given, [expected])


def test_an_input_type_that_the_model_has_no_prefix_for_is_refused(prefixed, server):
    error = ask(prefixed, "x", 400, input_type="clustering").json()["error"]

    assert error["code"] == "unsupported_input_type"
    assert np.array_equal(vector(server, "x", input_type="clustering"), vector(server, "x"))


@pytest.mark.parametrize(
    "said",
    [
        {"input_type": "query", "task": "retrieval.query"},
        {"output_dtype": "int8", "embedding_type": "int8"},
        {"input_type": "poem"},
        {"output_dtype": "int4"},
        {"embedding_types": []},
        {"embedding_types": ["int8", "float"]},
    ],
)
def test_options_that_are_unknown_or_said_twice_are_refused(server, said):
    assert ask(server, "x", 400, **said).json()["error"]["type"] == "invalid_request_error"


def test_an_upstreams_model_takes_no_input_type(start_server, upstream, tmp_path):
    config = tmp_path / "cacheproxy.toml"
    config.write_text(
        f'[upstreams.main]\nbase_url = "{upstream.url}"\nembeddings = {{ "far-model" = 8 }}\n'
    )
    server = start_server("--config", str(config))
    body = {"model": "far-model", "input": "x", "input_type": "query"}

    answer = server.http.post("/v1/embeddings", json=body)

    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "unsupported_input_type"


@pytest.mark.parametrize("field", ["output_dtype", "embedding_type", "embedding_types"])
@pytest.mark.parametrize("dtype", ["float", "int8", "uint8", "binary", "ubinary"])
def test_numbers_come_in_the_type_that_is_asked_for(server, field, dtype):
    full = vector(server, "numbers").astype(np.float32)
    said = {field: [dtype] if field == "embedding_types" else dtype}

    answer = ask(server, "numbers", **said)

    given = answer.json()["data"][0]["embedding"]
    expected = full if dtype == "float" else quantize(full, dtype)
    assert np.allclose(given, expected, atol=1e-7)
    assert "hit" in answer.headers["cache-status"]


def test_integers_are_never_base64_which_openais_client_would_take_for_floats(server):
    client = server.client()

    integers = client.embeddings.create(
        input="numbers", model=MODEL, extra_body={"output_dtype": "int8"}
    )
    assert len(integers.data[0].embedding) == 384
    assert max(map(abs, integers.data[0].embedding)) == 127


def test_jinas_base64_is_openais(server):
    of_jina = ask(server, "numbers", embedding_type="base64").json()
    assert of_jina == ask(server, "numbers", encoding_format="base64").json()


def test_a_cut_vector_is_cut_before_it_becomes_integers(server):
    cut = vector(server, "numbers", dimensions=64).astype(np.float32)

    bits = vector(server, "numbers", dimensions=64, output_dtype="ubinary")

    assert np.array_equal(bits, quantize(cut, "ubinary"))
    error = ask(server, "numbers", 400, dimensions=12, output_dtype="binary").json()["error"]
    assert "multiple of 8" in error["message"]


def test_a_cut_that_the_model_was_not_trained_for_is_warned_of(server, prefixed):
    warning = ask(server, "short", dimensions=128).headers["x-cacheproxy-warning"]

    assert "not trained" in warning
    assert "x-cacheproxy-warning" not in ask(server, "short", dimensions=384).headers
    assert "x-cacheproxy-warning" not in ask(server, "short").headers
    assert "x-cacheproxy-warning" not in ask(prefixed, "short", dimensions=128).headers
    assert "x-cacheproxy-warning" in ask(prefixed, "short", dimensions=64).headers


def test_a_cut_that_the_model_was_not_trained_for_is_refused_if_so_set(prefixed_home):
    server = Server(
        prefixed_home, "memory://", "--drain-s", "0", "--embeddings-untrained-dimensions", "refuse"
    )
    try:
        client = server.client()
        assert client.embeddings.create(input="short", model=MODEL, dimensions=128).data
        with pytest.raises(openai.BadRequestError, match="allowed: 128, 384") as refused:
            client.embeddings.create(input="short", model=MODEL, dimensions=64)
        assert refused.value.code == "untrained_dimensions"
    finally:
        server.stop()
