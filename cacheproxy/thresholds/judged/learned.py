"""A score that is learned from the traffic's own labels: logistic regression over pair features.

Two regressions, each fitted on one half of the labels; the half is told by a hash of the neighbour.
A pair is always scored by the regression that never saw its half. So all labels can certify the
score, and none of them certifies what it was used to make.

The penalty is strong, so that few labels do no harm. On pairs of Quora's, drawn as
`cacheproxy eval` draws them, 150 to 2,000 labels give 1.32 to 1.39 times the cosine's hits at 2 %
wrong, among groups that were not seen (eight splits). On Quora's clusters, where the cosine leaves
little to gain (3,991 of 4,652), 600 labels and more give 1.01 to 1.02 times as many, and fewer give
no score or no hit: a score is used only where it certifies more. A second encoder's cosine, token
alignment and gradient boosting gain at most 0.03 more on drawn pairs (docs/measurements.md).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cacheproxy.thresholds.bands import BANDS
from cacheproxy.thresholds.judged.evidence import FEATURES, Items

Floats = NDArray[np.float64]

_PENALTY = 20.0
"""Half the weight of the squared, standardised coefficients, in labels."""

_LEAST_OF_EACH = 8
"""Right and wrong labels that each half must have."""

_STEPS = 12
_LOWEST, _PER_UNIT = -3.5, 5.0
"""Log-odds at which the second band begins, and bands a unit: the last one begins at 4.5."""


def band_of_odds(odds: Floats) -> NDArray[np.int64]:
    """Return the bands, 0 to BANDS - 1, of log-odds, float64 [n]."""
    bands: NDArray[np.int64] = np.clip((odds - _LOWEST) * _PER_UNIT + 1, 0, BANDS - 1).astype(
        np.int64
    )
    return bands


def odds_of_band(band: int) -> float:
    """Return the lowest log-odds of a band above the first."""
    return _LOWEST + (band - 1) / _PER_UNIT


@dataclass(frozen=True)
class LearnedScore:
    """Log-odds that a neighbour is right.

    Attributes:
        weights: float64 [2, FEATURES], of the features as they are; row h is fitted on half 1 - h.
        offsets: float64 [2].
    """

    weights: Floats
    offsets: Floats

    def odds(self, features: NDArray[np.floating], halves: NDArray[np.integer]) -> Floats:
        """Return the log-odds of pairs, float64 [n], by their features [n, FEATURES] and halves."""
        found: Floats = np.einsum("nf,nf->n", features.astype(np.float64), self.weights[halves])
        found += self.offsets[halves]
        return found


def learn(labels: Items) -> LearnedScore | None:
    """Return the score that labels (`LABEL` [n]) teach; None while a half has too few."""
    weights, offsets = np.empty((2, FEATURES)), np.empty(2)
    features = labels["features"].astype(np.float64)
    is_right = (labels["is_rejected"] == 0).astype(np.float64)
    for half in (0, 1):
        other = labels["half"] == 1 - half
        right = is_right[other].sum()
        if min(right, other.sum() - right) < _LEAST_OF_EACH:
            return None
        weights[half], offsets[half] = _fit(features[other], is_right[other])
    if not np.isfinite(weights).all() or not np.isfinite(offsets).all():
        return None
    return LearnedScore(weights, offsets)


def _fit(features: Floats, is_right: Floats) -> tuple[Floats, float]:
    """Return weights and offset: Newton's method on standardised features."""
    mean, spread = features.mean(axis=0), features.std(axis=0) + 1e-2
    rows = np.c_[(features - mean) / spread, np.ones(len(features))]
    penalty = np.full(FEATURES + 1, _PENALTY)
    penalty[-1] = 1e-3
    found = np.zeros(FEATURES + 1)
    for _ in range(_STEPS):
        guess = 1 / (1 + np.exp(-np.clip(rows @ found, -30, 30)))
        slope = rows.T @ (guess - is_right) + penalty * found
        curve = (rows * (guess * (1 - guess))[:, None]).T @ rows + np.diag(penalty)
        found -= np.linalg.solve(curve, slope)
    weights: Floats = found[:-1] / spread
    return weights, float(found[-1] - weights @ mean)
