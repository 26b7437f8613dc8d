"""Simulated traffic for thresholds: scores and outcomes drawn from known curves.

A third of the texts are near a stored one. The probability that a neighbour is wrong falls with its
score along a logistic curve; the lower the middle of the curve, the more neighbours are right.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cacheproxy.thresholds.earned import EarnedThresholds

RIGHT, WRONG = 0.99, 0.50
"""The similarities that stand for a right and a wrong neighbour."""

_NEAR = 0.3
_NEAR_SCORES, _FAR_SCORES = (30, 2), (8, 4)
_STEEPNESS = 60.0
_LEAST_ERROR = 0.001


@dataclass(frozen=True)
class Simulated:
    """Texts with a neighbour, in their order.

    Attributes:
        scores: float64 [texts].
        is_wrong: bool [texts], whether the neighbour is wrong.
        risks: float64 [texts], how probable that was.
    """

    scores: NDArray[np.float64]
    is_wrong: NDArray[np.bool_]
    risks: NDArray[np.float64]


def simulate(
    texts: int, seed: int, *, middle: float = 0.88, later: float | None = None
) -> Simulated:
    """Return traffic; `middle` is the score at which half of the neighbours are wrong.

    `later`, if given, is the middle for the second half, to simulate a change of traffic.
    """
    rng = np.random.default_rng(seed)
    is_near = rng.random(texts) < _NEAR
    scores = np.where(is_near, rng.beta(*_NEAR_SCORES, texts), rng.beta(*_FAR_SCORES, texts))
    middles = np.full(texts, middle)
    if later is not None:
        middles[texts // 2 :] = later
    wrong = 1 / (1 + np.exp(-_STEEPNESS * (middles - scores)))
    risks = _LEAST_ERROR + (1 - _LEAST_ERROR) * wrong
    return Simulated(scores, rng.random(texts) < risks, risks)


def best_hits(traffic: Simulated, max_error: float) -> int:
    """Return how many texts the best fixed threshold could serve if all risks were known."""
    order = np.argsort(-traffic.scores)
    errors = np.cumsum(traffic.risks[order]) / np.arange(1, len(order) + 1)
    kept = np.flatnonzero(errors <= max_error)
    return int(kept[-1]) + 1 if len(kept) else 0


def play(
    thresholds: EarnedThresholds, traffic: Simulated, min_similarity: float
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return which texts are served, int64 [hits], and which of those wrongly, bool [hits]."""
    hits = []
    pairs = zip(traffic.scores.tolist(), traffic.is_wrong.tolist(), strict=True)
    for text, (score, is_wrong) in enumerate(pairs):
        verdict = thresholds.judge(score, min_similarity)
        if verdict.is_hit:
            hits.append(text)
        if verdict.check or not verdict.is_hit:
            thresholds.observe(score, WRONG if is_wrong else RIGHT)
    served = np.array(hits, np.int64)
    return served, traffic.is_wrong[served]
