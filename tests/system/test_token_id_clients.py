"""Unmodified clients that send token ids get the vectors of the texts that they were given."""

import numpy as np
import openai
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_openai import OpenAIEmbeddings
from llama_index.embeddings.openai import OpenAIEmbedding
from tiktoken_cache import fill_tiktoken_cache

from cacheproxy.inference.openai_encodings import ENCODING_NAMES, load_encoding
from cacheproxy.inference.tokenizer import Tokenizer

MODEL = "all-MiniLM-L6-v2"
ALIASES = ("text-embedding-ada-002", "text-embedding-3-small")

DOCUMENTS = [
    "A cache stampede is what happens when many requests miss the same entry at once.",
    "def f(x):\n\treturn x ** 2  # naïve",
    "Straße, 你好, こんにちは, привет, नमस्ते, 🧑‍🚀",
    "an [UNK] word and an <|endoftext|>".replace("<|endoftext|>", "end"),
]
LONG = "".join(f"Chapter {i}: the {i * 37 % 101}rd fox met 𒀀 and 🧑‍🚀. " for i in range(1_500))


@pytest.fixture(scope="module", autouse=True)
def _vocabularies(tmp_path_factory):
    cache = fill_tiktoken_cache(tmp_path_factory.mktemp("tiktoken"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", str(cache))
        yield


@pytest.fixture(scope="module")
def aliased(model_home, tmp_path_factory):
    """A server whose model also has the names of OpenAI's models."""
    from server_process import Server

    config = tmp_path_factory.mktemp("aliased") / "cacheproxy.toml"
    lines = "".join(f'"{alias}" = "{MODEL}"\n' for alias in ALIASES)
    config.write_text(f"[model_aliases]\n{lines}")
    server = Server(model_home, "memory://", "--drain-s", "0", "--config", str(config))
    yield server
    assert server.stop() == 0, server.log


def vectors_of(server, texts) -> np.ndarray:
    """Return the vectors that the server gives for texts [n, d]."""
    response = server.client().embeddings.create(input=texts, model=MODEL)
    return np.array([item.embedding for item in response.data])


def assert_same(given, expected):
    assert np.allclose(np.linalg.norm(given, axis=1), 1, atol=1e-5)
    assert np.min(np.sum(given * expected, axis=1)) > 0.9999


def langchain(server, **more):
    return OpenAIEmbeddings(base_url=f"{server.url}/v1", api_key="x", **more)


@pytest.mark.parametrize("more", [{}, {"model": "text-embedding-3-small"}])
def test_langchain_gets_right_vectors_with_its_defaults(aliased, more):
    embeddings = langchain(aliased, **more)

    assert_same(np.array(embeddings.embed_documents(DOCUMENTS)), vectors_of(aliased, DOCUMENTS))
    for text in ("hello", "how do I reset my password?"):
        assert_same(np.array([embeddings.embed_query(text)]), vectors_of(aliased, [text]))


def test_a_text_that_langchain_sends_in_pieces_is_read_in_these_pieces(aliased):
    encoding = load_encoding("cl100k_base")
    ids = encoding.encode_ordinary(LONG)
    pieces = [ids[i : i + 8_191] for i in range(0, len(ids), 8_191)]
    assert len(pieces) > 3
    of_pieces = vectors_of(aliased, [encoding.decode(piece) for piece in pieces])
    mean = np.average(of_pieces, axis=0, weights=[len(piece) for piece in pieces])

    given = langchain(aliased).embed_documents([DOCUMENTS[0], LONG])

    expected = [vectors_of(aliased, DOCUMENTS[:1])[0], mean / np.linalg.norm(mean)]
    assert_same(np.array(given), np.array(expected))


def test_under_the_models_own_name_langchain_is_right_or_told_what_to_do(server):
    embeddings = langchain(server, model=MODEL)

    with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length") as refused:
        embeddings.embed_query("hello")
    assert refused.value.code == "ambiguous_token_ids"
    question = "how do I reset my password?"
    assert_same(np.array([embeddings.embed_query(question)]), vectors_of(server, [question]))
    documents = [f"{text} ({i})" for i in range(10) for text in DOCUMENTS]
    assert_same(np.array(embeddings.embed_documents(documents)), vectors_of(server, documents))
    as_told = langchain(server, model=MODEL, check_embedding_ctx_length=False)
    assert_same(np.array([as_told.embed_query("hello")]), vectors_of(server, ["hello"]))


def test_with_the_setting_langchain_is_right_under_the_models_own_name(start_server):
    server = start_server("--embeddings-token-ids", "cl100k_base")
    embeddings = langchain(server, model=MODEL)

    assert_same(np.array([embeddings.embed_query("hello")]), vectors_of(server, ["hello"]))
    with pytest.raises(openai.BadRequestError, match="not what cl100k_base gives"):
        server.client().embeddings.create(input=[101, 7592, 102], model=MODEL)


def test_llamaindex_gets_right_vectors_with_its_defaults(aliased):
    embedding = OpenAIEmbedding(api_base=f"{aliased.url}/v1", api_key="x")
    expected = vectors_of(aliased, [*DOCUMENTS, "hello"])

    assert_same(np.array(embedding.get_text_embedding_batch(DOCUMENTS)), expected[:-1])
    assert_same(np.array([embedding.get_query_embedding("hello")]), expected[-1:])


PARTS = [part for text in (*DOCUMENTS, LONG[:400]) for part in text.split(". ")]


@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(texts=st.lists(st.sampled_from(PARTS), min_size=1, max_size=4))
@pytest.mark.parametrize("maker", ["own", *ENCODING_NAMES])
def test_ids_give_the_texts_own_vectors_or_an_error(server, installed, maker, texts):
    if maker == "own":
        lists = Tokenizer(installed.tokenizer_json, installed.max_tokens).encode(texts)
    else:
        lists = [load_encoding(maker).encode_ordinary(text) for text in texts]
    try:
        response = server.client().embeddings.create(input=lists, model=MODEL)
    except openai.BadRequestError:
        return
    given = np.array([item.embedding for item in response.data])
    assert np.min(np.sum(given * vectors_of(server, texts), axis=1)) > 0.99
