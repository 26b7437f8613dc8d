"""The probes of the real model: what they find, and the model itself as another one's probe."""

import json
from dataclasses import replace

import numpy as np
import pytest

from cacheproxy.errors import ModelError
from cacheproxy.inference.session import OnnxEncoder
from cacheproxy.inference.tokenizer import Tokenizer
from cacheproxy.modelkit.gate.measure import embed
from cacheproxy.modelkit.probing import make_probe
from cacheproxy.probes.static import StaticProbe
from cacheproxy.settings.sections import SemanticSettings
from cacheproxy.settings.settings import Settings


@pytest.fixture(scope="module")
def tokenizer(installed):
    return Tokenizer(installed.tokenizer_json, installed.max_tokens)


@pytest.fixture(scope="module")
def shallow(installed):
    return make_probe(Settings(), installed)


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


def probe_of(home, installed, name="all-MiniLM-L6-v2"):
    return make_probe(Settings(home=home, semantic=SemanticSettings(probe=name)), installed)


async def test_a_model_may_be_the_probe(installed, model_home, tokenizer):
    ids = tokenizer.encode(["What is a vector index?", "what's a vector index", "word " * 300])
    vectors = embed(OnnxEncoder(installed.graph).encode, ids)

    assert (await probe_of(model_home, installed).encode(ids) == vectors).all()


async def test_a_model_with_other_tokens_is_probed_by_the_text(installed, model_home, tokenizer):
    """The other model has the same tokens with other ids: those of two words are swapped."""
    vocabulary = json.loads(installed.tokenizer_json)
    words = vocabulary["model"]["vocab"]
    words["cat"], words["dog"] = words["dog"], words["cat"]
    other = replace(installed, tokenizer_json=json.dumps(vocabulary).encode())
    text = ["the dog sleeps while the cat is hunting"]
    other_ids = Tokenizer(other.tokenizer_json, other.max_tokens).encode(text)
    vectors = embed(OnnxEncoder(installed.graph).encode, tokenizer.encode(text))

    assert other_ids != tokenizer.encode(text)
    assert (await probe_of(model_home, other).encode(other_ids) == vectors).all()


def test_a_probe_that_is_no_model_is_refused(installed, model_home):
    with pytest.raises(ModelError, match="known models"):
        probe_of(model_home, installed, "deep")


def found(probes, vectors):
    """Return what the best thresholds with 1, 2 and 5 % wrong find of all lookups, over orders."""
    shares = []
    for seed in range(4):
        order = np.random.default_rng(seed).permutation(len(probes))
        scores = probes[order] @ probes[order].T
        scores[np.triu_indices(len(order))] = -2
        nearest = scores.argmax(axis=1)
        half = slice(len(order) // 2, None)
        similarity = np.sum(vectors[order] * vectors[order][nearest], axis=1)[half]
        best_first = np.argsort(-scores.max(axis=1)[half])
        wrong = np.cumsum(similarity[best_first] < 0.90) / np.arange(1, len(best_first) + 1)
        good = [np.flatnonzero(wrong <= most) for most in (0.01, 0.02, 0.05)]
        shares.append([(each[-1] + 1) / len(best_first) if len(each) else 0.0 for each in good])
    return np.mean(shares, axis=0)


async def test_it_finds_far_more_than_the_static_probe(installed, tokenizer, shallow, shared_rows):
    ids = tokenizer.encode([row["text"] for row in shared_rows("clusters_qqp_dev.jsonl")])
    vectors = embed(OnnxEncoder(installed.graph).encode, ids)
    ours = found(await shallow.encode(ids), vectors)
    static = found(await StaticProbe(installed.static_probe).encode(ids), vectors)

    assert (ours >= np.array([2, 1.7, 1.7]) * static).all()
