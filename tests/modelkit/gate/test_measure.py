"""The gate's figures are what they say, and a model that is worse shows in them."""

import dataclasses

import numpy as np
import pytest

from cacheproxy.errors import ModelError
from cacheproxy.inference.session import OnnxEncoder
from cacheproxy.modelkit.building.calibrate import TokenGroups
from cacheproxy.modelkit.building.corpus import Corpus, Pair, make_search, read_corpus
from cacheproxy.modelkit.building.graph import float_graph, int8_graph
from cacheproxy.modelkit.building.quantize import quantize
from cacheproxy.modelkit.building.weights import encoder_from_tensors
from cacheproxy.modelkit.gate.gate import require_pass
from cacheproxy.modelkit.gate.measure import GateTexts, embed, measure, spearman
from cacheproxy.modelkit.isa import isa_class, weight_bits
from cacheproxy.modelkit.manifest import models_folder


def test_spearman_shares_ranks_among_equal_values():
    assert spearman(np.array([1.0, 2, 3, 4]), np.array([10.0, 20, 30, 40])) == pytest.approx(1)
    assert spearman(np.array([1.0, 2, 3, 4]), np.array([4.0, 3, 2, 1])) == pytest.approx(-1)
    # By hand: ranks 0.5, 0.5, 2, 3 against 0, 1, 2, 3.
    assert spearman(np.array([1.0, 1, 2, 3]), np.array([1.0, 2, 3, 4])) == pytest.approx(0.9486833)


def test_vectors_come_in_the_order_of_the_texts():
    texts = [[5, 1], [7], [6, 2], [8], [9, 3, 3]]

    rows = embed(lambda ids: ids[:, :1].astype(np.float32), texts)

    assert rows[:, 0].tolist() == [5, 7, 6, 8, 9]


def test_a_search_asks_with_the_first_sentence_of_held_out_texts_only():
    rest = "And here is the rest of it, which is long enough to be a document."
    long = f"This is the first sentence of a text? {rest}"
    corpus = Corpus(calibration=(long.upper(), "short"), held_out=(long, "One sentence."), pairs=())

    search = make_search(corpus)

    assert search.queries == ("This is the first sentence of a text",)
    assert search.documents == (rest, rest.upper())


def test_the_shipped_corpus_has_pairs_of_all_scores_and_enough_queries():
    corpus = read_corpus(models_folder())
    scores = [pair.score for pair in corpus.pairs]

    assert len(scores) >= 200
    assert min(scores) == 0
    assert max(scores) > 4.5
    assert all(pair.a != pair.b for pair in corpus.pairs)
    assert len(make_search(corpus).queries) >= 40


@pytest.fixture(scope="module")
def small_models(small_model):
    manifest, tensors = small_model("bert, mean")
    encoder = encoder_from_tensors(tensors, manifest)
    rng = np.random.default_rng(1)
    groups = [rng.integers(0, 200, (24, length)) for length in (3, 7, 16, 33)]
    return encoder, groups


def gate_texts(groups) -> GateTexts:
    texts = [row.tolist() for group in groups for row in group]
    pairs = [Pair("", "", score) for score in range(6)]
    return GateTexts(
        held_out=texts,
        firsts=texts[:6],
        seconds=[[*texts[i][: 3 - i // 2], *texts[i + 6][3 - i // 2 :]] for i in range(6)],
        scores=[pair.score for pair in pairs],
        queries=[text[:-1] for text in texts[30:60]],
        documents=texts[30:],
    )


def test_a_good_model_passes_and_a_damaged_one_does_not(small_models):
    encoder, groups = small_models
    original = OnnxEncoder(float_graph(encoder)).encode
    quantized = quantize(encoder, TokenGroups(groups), weight_bits(isa_class()))
    damaged = dataclasses.replace(
        quantized, layers=(quantized.layers[1], quantized.layers[0], *quantized.layers[2:])
    )

    good = measure(OnnxEncoder(int8_graph(quantized)).encode, original, gate_texts(groups))
    bad = measure(OnnxEncoder(int8_graph(damaged)).encode, original, gate_texts(groups))

    assert good.cosine_mean > 0.999
    assert good.served.recall_at_10 >= good.original.recall_at_10 - 0.05
    assert good.invariance_failures == 0
    assert bad.cosine_mean < 0.9
    with pytest.raises(ModelError, match="cosine to float, mean"):
        require_pass(bad, "damaged")


def test_three_bits_are_too_few(small_models):
    encoder, groups = small_models
    original = OnnxEncoder(float_graph(encoder)).encode

    coarse = int8_graph(quantize(encoder, TokenGroups(groups), 3))
    report = measure(OnnxEncoder(coarse).encode, original, gate_texts(groups))

    assert report.failures()
