"""The gate of rerankers passes what ranks as the float model does, and nothing else."""

import numpy as np
import pytest

from cacheproxy.errors import ModelError
from cacheproxy.modelkit.building.corpus import make_pairs
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


def coarse(ids):
    return np.rint(original(ids) / 12) * np.float32(12)


def upside_down(ids):
    return -original(ids)


def of_its_batch(ids):
    return original(ids) + np.float32(len(ids) * 1e-3)


TEXTS = [
    f"Sentence one of text {i} is long enough. Short. A third sentence, of text {i}, is, too! "
    f"And the last one of text {i} ends it."
    for i in range(3)
]


def test_each_sentence_that_suits_is_asked_for_the_rest_of_its_text_among_others():
    made = make_pairs([*TEXTS, "A single sentence is no pair."], 2, 4)

    assert len(made) == 9
    assert made[:9:3] == [row for i, row in enumerate(make_pairs(TEXTS, 2)) if i < 3]
    query, own = made[1][0]
    assert query == "A third sentence, of text 0, is, too!"
    assert query not in own
    assert sorted((own + " " + query).split()) == sorted(TEXTS[0].split())
    for i, of_one in enumerate(made):
        assert [f"text {number}" in of_one[0][1] for number in range(3)].index(True) == i // 3
        assert len({document for _, document in of_one}) == 3
        assert len({asked for asked, _ in of_one}) == 1


def test_the_interval_of_the_loss_holds_it_and_shrinks_with_more_queries():
    few = measure_ranking(coarse, original, CANDIDATES[:10])
    many = measure_ranking(coarse, original, CANDIDATES * 10)

    for report in (few, many):
        change = report.served_ndcg - report.original_ndcg
        assert report.change_low <= change <= report.change_high
    assert many.change_high - many.change_low < few.change_high - few.change_low
    assert many.change_low < 0


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
