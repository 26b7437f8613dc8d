"""What is served is what the float32 model would have served, near enough for a retriever."""

import numpy as np
import pytest
from tokenizers import Tokenizer

from cacheproxy.inference.session import OnnxEncoder
from cacheproxy.modelkit.building.graph import float_graph
from cacheproxy.modelkit.building.weights import read_encoder
from cacheproxy.modelkit.manifest import load_manifest

MODEL = "all-MiniLM-L6-v2"
MAX_TOKENS = 256

VARIED = {
    "queries_nq_dev.jsonl": "text",
    "queries_stackexchange_dev.jsonl": "text",
    "queries_wikianswers_dev.jsonl": "text",
    "corpus_xquad_dev.jsonl": "text",
    "corpus_redis_docs.jsonl": "text",
}


@pytest.fixture(scope="module")
def embed_float(model_home, installed):
    """Return a function that embeds texts with the float32 graph, one at a time."""
    sources = model_home / "sources" / MODEL
    encoder = read_encoder(sources / "model.safetensors", load_manifest(MODEL))
    session = OnnxEncoder(float_graph(encoder))
    tokenizer = Tokenizer.from_str(installed.tokenizer_json.decode())
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)

    def embed(texts: list[str]) -> np.ndarray:
        ids = [tokenizer.encode(text).ids for text in texts]
        return np.concatenate([session.encode(np.array([text], np.int64)) for text in ids])

    return embed


def embed_served(server, texts: list[str]) -> np.ndarray:
    client = server.client(timeout=300)
    rows = []
    for start in range(0, len(texts), 100):
        answer = client.embeddings.create(input=texts[start : start + 100], model=MODEL)
        rows += [item.embedding for item in answer.data]
    return np.array(rows, np.float32)


def test_served_vectors_are_near_the_float_models_over_varied_texts(
    server, embed_float, shared_rows
):
    texts = []
    for name, column in VARIED.items():
        rows = shared_rows(name)
        texts += [row[column][:20_000] for row in rows[:: len(rows) // 40]][:40]

    cosines = np.sum(embed_served(server, texts) * embed_float(texts), axis=1)

    assert len(texts) == 200
    assert cosines.mean() >= 0.99
    assert cosines.min() >= 0.95


def test_the_right_passage_is_found_as_often_as_with_the_float_model(
    server, embed_float, shared_rows
):
    passages, questions = (
        shared_rows("corpus_xquad_dev.jsonl"),
        shared_rows("queries_xquad_dev.jsonl")[::2],
    )
    ids = np.array([passage["id"] for passage in passages])
    wanted = np.array([question["doc_id"] for question in questions])

    def recall_at_1(embed) -> float:
        corpus = embed([passage["text"] for passage in passages])
        queries = embed([question["query"] for question in questions])
        return float(np.mean(ids[np.argmax(queries @ corpus.T, axis=1)] == wanted))

    served = recall_at_1(lambda texts: embed_served(server, texts))

    assert served >= recall_at_1(embed_float) - 0.01
