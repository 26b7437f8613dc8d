"""The shallow probe of the real model: what it finds, beside the static one."""

import numpy as np
import pytest

from cacheproxy.inference.session import OnnxEncoder
from cacheproxy.inference.tokenizer import Tokenizer
from cacheproxy.modelkit.measure import embed
from cacheproxy.probes.shallow import ShallowProbe
from cacheproxy.probes.static import StaticProbe


@pytest.fixture(scope="module")
def tokenizer(installed):
    return Tokenizer(installed.tokenizer_json, installed.max_tokens)


@pytest.fixture(scope="module")
def shallow(installed):
    return ShallowProbe(OnnxEncoder(installed.shallow_probe).encode)


async def test_rows_are_unit_vectors_in_the_order_of_the_texts(tokenizer, shallow):
    texts = tokenizer.encode(["a short one", "one that is rather longer than that", "a short two"])
    together = await shallow.encode(texts)
    alone = np.concatenate([await shallow.encode([ids]) for ids in texts])

    assert together.shape == (3, 256)
    assert np.linalg.norm(together, axis=1) == pytest.approx(1, abs=1e-5)
    assert np.abs(together - alone).max() < 1e-5


async def test_the_order_of_words_matters(tokenizer, shallow):
    texts = tokenizer.encode(["does the dog bite the man", "does the man bite the dog"])
    one, other = await shallow.encode(texts)

    assert one @ other < 0.9999


def found(probes, vectors, most_wrong):
    """Return the share of lookups that the best threshold with so many wrong finds, over orders."""
    shares = []
    for seed in range(10):
        order = np.random.default_rng(seed).permutation(len(probes))
        scores = probes[order] @ probes[order].T
        scores[np.triu_indices(len(order))] = -2
        nearest = scores.argmax(axis=1)
        half = slice(len(order) // 2, None)
        similarity = np.sum(vectors[order] * vectors[order][nearest], axis=1)[half]
        best_first = np.argsort(-scores.max(axis=1)[half])
        wrong = np.cumsum(similarity[best_first] < 0.90) / np.arange(1, len(best_first) + 1)
        good = np.flatnonzero(wrong <= most_wrong)
        shares.append((good[-1] + 1) / len(best_first) if len(good) else 0.0)
    return np.mean(shares)


async def test_it_finds_far_more_than_the_static_probe(installed, tokenizer, shallow, shared_rows):
    ids = tokenizer.encode([row["text"] for row in shared_rows("clusters_qqp_dev.jsonl")])
    vectors = embed(OnnxEncoder(installed.graph).encode, ids)
    ours = await shallow.encode(ids)
    static = await StaticProbe(installed.static_probe).encode(ids)

    assert found(ours, vectors, 0.01) >= 2 * found(static, vectors, 0.01)
    assert found(ours, vectors, 0.02) >= 1.7 * found(static, vectors, 0.02)
    assert found(ours, vectors, 0.05) >= 1.7 * found(static, vectors, 0.05)
