"""A rule for comparison: one logistic curve per entry, as published for semantic caches of chat.

An own implementation of the published method (arXiv 2502.03771): each entry keeps the
scores at which it was found and whether it was right; a curve of correctness over the score is
fitted to them, and a neighbour is served with the probability that keeps the errors among all
requests, not among hits, at `max_error`.
"""

import math
from collections.abc import Callable
from statistics import NormalDist

from cacheproxy.thresholds.controller import Verdict

_LEAST_LABELS = 4
_STEPS = 25
_RISKS = tuple(step / 51 for step in range(1, 51))
_SPREAD = 0.35
"""Standard deviation of a threshold, times one over the root of the labels, where all labels of an
entry can be told apart by it: then no likelihood gives one."""


class EntryLogistic:
    """One entry's labels and its rule."""

    __slots__ = ("_labels",)

    def __init__(self) -> None:
        self._labels: list[tuple[float, bool]] = [(0.0, False), (1.0, True)]

    def add(self, score: float, is_right: bool) -> None:
        """Add a label."""
        self._labels.append((score, is_right))

    def judge(self, score: float, max_error: float, draw: Callable[[], float]) -> Verdict:
        """Return whether to serve the entry at this score; the draw is uniform in [0, 1)."""
        if len(self._labels) < _LEAST_LABELS + 2:
            return Verdict(False)
        slope, middle = self._fit()
        spread = _SPREAD / math.sqrt(len(self._labels))
        explore = 1.0
        for risk in _RISKS:
            late = min(1.0, middle + _quantile(1 - risk) * spread)
            correct = (1 - risk) * _sigmoid(slope * (score - late))
            explore = min(explore, 1 - max_error / (1 - correct) if correct < 1 else 0.0)
        return Verdict(draw() > explore)

    def _fit(self) -> tuple[float, float]:
        """Return slope and middle of the curve: Newton's method, held by a weak prior."""
        slope, offset = 10.0, -8.0
        for _ in range(_STEPS):
            g0 = g1 = 0.0
            h00 = h01 = h11 = 1e-3
            for score, is_right in self._labels:
                p = _sigmoid(slope * score + offset)
                weight = p * (1 - p)
                g0 += is_right - p
                g1 += (is_right - p) * score
                h00 += weight
                h01 += weight * score
                h11 += weight * score * score
            g1 -= 1e-3 * (slope - 10)
            determinant = h00 * h11 - h01 * h01
            if determinant <= 1e-12:
                break
            offset += (h11 * g0 - h01 * g1) / determinant
            slope = min(200.0, max(1e-3, slope + (h00 * g1 - h01 * g0) / determinant))
        return slope, min(1.0, max(0.0, -offset / slope))


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-max(-60.0, min(60.0, x))))


def _quantile(probability: float) -> float:
    return NormalDist().inv_cdf(probability)
