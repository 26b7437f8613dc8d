"""The gate of rerankers: requirements that INT8 scores must meet, relative to the float original.

Both models rank the same candidates: for each query, which is the first sentence of a held-out
text, the rest of that text and of others. Measured are the rank correlation of the scores, how well
each model ranks (nDCG@10; only a query's own document is relevant), and whether a pair's score is
bit-identical alone and in a batch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cacheproxy.modelkit.building.corpus import group_by_length
from cacheproxy.modelkit.building.weights import Floats
from cacheproxy.modelkit.gate.gate import Report
from cacheproxy.modelkit.gate.measure import Encode, count_batch_effects, embed, spearman

LEAST_SPEARMAN = 0.98

MOST_NDCG_LOSS = 0.01
"""Chance moves the difference over 150 queries by 0.004 (standard error), and over 50 by 0.011.
Of a constructed reranker that ranks weakly (0.565), INT8 was 0.001 below float32."""

_DEPTH = 10
_RESAMPLES = 2_000


@dataclass(frozen=True, kw_only=True)
class RankingReport(Report):
    """The measurements.

    Attributes:
        queries, pairs: how many were scored.
        spearman: rank correlation of the INT8 and the float scores, over all pairs.
        spearman_least: the same of one query's pairs, the least of all queries.
        served_ndcg, original_ndcg: mean nDCG@10 of the two models.
        change_low, change_high: 95 % confidence interval of their difference, by bootstrap over the
            queries (Efron 1979, percentiles).
    """

    results = "scores"

    queries: int
    pairs: int
    spearman: float
    spearman_least: float
    served_ndcg: float
    original_ndcg: float
    change_low: float
    change_high: float

    def _demands(self) -> Iterator[tuple[str, float, float]]:
        yield "scores to float, Spearman", self.spearman, LEAST_SPEARMAN
        yield "ranking, nDCG@10", self.served_ndcg, self.original_ndcg - MOST_NDCG_LOSS

    def _facts(self) -> Iterator[tuple[str, str]]:
        yield "queries, pairs", f"{self.queries}, {self.pairs}"
        yield "Spearman, least of one query", f"{self.spearman_least:.5f}"
        interval = f"{self.change_low:+.4f} to {self.change_high:+.4f}"
        yield "nDCG@10 to float, 95 % interval", interval


def measure_ranking(
    served: Encode,
    original: Encode,
    candidates: Sequence[Sequence[list[int]]],
    *,
    batch_tolerance: float = 0.0,
) -> RankingReport:
    """Return the figures of two models that score int64 [n, tokens] ids as float32 [n, 1].

    Args:
        served, original: the models.
        candidates: for each query the ids of its pairs, equally many, its own document's first.
        batch_tolerance: how much a score may change with its batch.
    """
    pairs = [ids for of_one in candidates for ids in of_one]
    shape = len(candidates), len(candidates[0])
    ours = embed(served, pairs).reshape(shape)
    theirs = embed(original, pairs).reshape(shape)
    groups = group_by_length(pairs)
    checks, failures = count_batch_effects(served, groups, batch_tolerance)
    served_gains, original_gains = ndcg(ours), ndcg(theirs)
    low, high = _interval(served_gains - original_gains)
    return RankingReport(
        queries=len(candidates),
        pairs=len(pairs),
        spearman=spearman(ours.ravel(), theirs.ravel()),
        spearman_least=min(spearman(*rows) for rows in zip(ours, theirs, strict=True)),
        served_ndcg=float(served_gains.mean()),
        original_ndcg=float(original_gains.mean()),
        change_low=low,
        change_high=high,
        invariance_checks=checks,
        invariance_failures=failures,
    )


def ndcg(scores: Floats) -> NDArray[np.float64]:
    """Return nDCG@10 of rows of scores, float [queries, n], whose first candidate is the right one.

    With one relevant document that is 1 / log2(1 + its rank), or 0 beyond the tenth (Järvelin and
    Kekäläinen 2002). A candidate with the same score counts as ranked before it.
    """
    ranks = 1 + (scores[:, 1:] >= scores[:, :1]).sum(axis=1)
    gains: NDArray[np.float64] = np.where(ranks <= _DEPTH, 1 / np.log2(1 + ranks), 0.0)
    return gains


def _interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the mean of values, float [n]."""
    rng = np.random.default_rng(0)
    means = values[rng.integers(0, len(values), (_RESAMPLES, len(values)))].mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)
