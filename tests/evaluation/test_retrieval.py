import numpy as np

from cacheproxy.evaluation.replay import Traffic
from cacheproxy.evaluation.retrieval import recall_by_similarity


def rows(seed, count, dim=32):
    values = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def beside(vectors, cosine):
    """Return vectors at that cosine from the given ones."""
    others = rows(9, len(vectors), vectors.shape[1])
    others -= (others * vectors).sum(1, keepdims=True) * vectors
    others /= np.linalg.norm(others, axis=1, keepdims=True)
    return cosine * vectors + np.sqrt(1 - cosine**2) * others


def test_nearer_vectors_find_more_of_the_same_documents():
    texts = rows(1, 300)
    vectors = np.concatenate([texts, beside(texts[:150], 0.995), beside(texts[150:], 0.93)])
    traffic = Traffic(np.arange(600), vectors, vectors, np.ones(600, bool))

    found = recall_by_similarity(traffic, rows(2, 2_000))
    assert [(row.lowest, row.pairs) for row in found] == [(0.99, 300), (0.92, 300)]
    assert 0.8 < found[0].share < 1
    assert found[1].share < found[0].share - 0.1


def test_a_vector_that_is_served_for_itself_finds_everything():
    texts = rows(3, 20)
    twice = np.concatenate([texts, texts])
    traffic = Traffic(np.arange(40), twice, twice, np.ones(40, bool))

    (row,) = recall_by_similarity(traffic, rows(4, 100))
    assert row.share == 1


def test_texts_that_are_far_from_each_other_give_no_row():
    texts = rows(5, 20, dim=384)
    traffic = Traffic(np.arange(20), texts, texts, np.ones(20, bool))

    assert recall_by_similarity(traffic, rows(6, 100, dim=384)) == []
