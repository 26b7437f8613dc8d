"""The gate of rerankers passes what ranks as the float model does, and nothing else."""

import numpy as np
import pytest

from cacheproxy.errors import ModelError
from cacheproxy.modelkit.gate.gate import require_pass
from cacheproxy.modelkit.gate.ranking import measure_ranking, ndcg

rng = np.random.default_rng(2)
CANDIDATES = [[rng.integers(0, 50, 4).tolist() for _ in range(12)] for _ in range(20)]
OWN = {tuple(of_one[0]) for of_one in CANDIDATES}


def original(ids):
    """Score pairs by their ids; a query's own document mostly ranks first."""
    bonus = np.array([30.0 if tuple(row) in OWN else 0.0 for row in ids])
    return (ids.sum(axis=1) / 4 + bonus)[:, None].astype(np.float32)


def rounded(ids):
    return np.rint(original(ids) * 4) / np.float32(4)


def upside_down(ids):
    return -original(ids)


def of_its_batch(ids):
    return original(ids) + np.float32(len(ids) * 1e-3)


def test_ndcg_is_that_of_one_relevant_document():
    scores = np.array([[3, 1, 2], [1, 3, 2], [1, 1, 1], [0, *[1] * 2]], np.float32)

    assert ndcg(scores).tolist() == [1, 0.5, 0.5, 0.5]
    assert ndcg(np.array([[0, *[1] * 10]], np.float32)).tolist() == [0]


def test_a_model_that_ranks_alike_passes():
    report = measure_ranking(rounded, original, CANDIDATES)

    require_pass(report, "good")
    assert report.spearman > 0.99
    assert report.original_ndcg > 0.9
    assert (report.queries, report.pairs) == (20, 240)


@pytest.mark.parametrize(
    ("model", "reason"), [(upside_down, "nDCG@10"), (of_its_batch, "depend on their batch")]
)
def test_one_that_does_not_is_refused(model, reason):
    with pytest.raises(ModelError, match=reason):
        require_pass(measure_ranking(model, original, CANDIDATES), "bad")
