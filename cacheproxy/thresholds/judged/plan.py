"""Which pairs go to the judge: those that tell most about the threshold that is nearest to opening.

A pair is labelled with a probability that depends on its score's band alone, so that labels of one
band are a fair sample of it. Above the loosest threshold that seems to keep the promise the
probability grows with the root of the band's share of wrong ones (Neyman's allocation); below it
few are labelled, to find whether it may be lowered.
"""

import math

import numpy as np
from numpy.typing import NDArray

from cacheproxy.thresholds.bands import BANDS

Floats = NDArray[np.float64]

_PRIOR_LABELS = 3.0
"""What a guess about a band is worth."""

_MARGIN_BANDS = 2
"""Bands below the threshold that seems possible, which are labelled as if they were above it."""

_LEAST_ERROR = 0.004
_BELOW, _NEXT_BANDS, _FAR_BELOW = 0.15, 8, 0.02


def plan(guess: Floats, labels: Floats, wrong: Floats, traffic: Floats, max_error: float) -> Floats:
    """Return each band's probability of a label, float64 [BANDS], at most 1.

    Args:
        guess: float64 [BANDS], shares of wrong ones to begin with.
        labels, wrong: float64 [BANDS], labels, and the estimated wrong ones among them.
        traffic: float64 [BANDS], texts, relatively.
        max_error: what is promised.
    """
    risk = (wrong + _PRIOR_LABELS * guess) / (labels + _PRIOR_LABELS)
    risk = np.clip(_falling(risk, labels + _PRIOR_LABELS), 0.0, 1.0)
    texts = traffic + 1e-9
    above = np.cumsum((risk * texts)[::-1])[::-1] / np.cumsum(texts[::-1])[::-1]
    possible = np.flatnonzero(above <= max_error)
    lowest = int(possible[0]) if len(possible) else BANDS - 1
    lowest = max(0, min(lowest, BANDS - 2) - _MARGIN_BANDS)
    wish = np.sqrt(risk + _LEAST_ERROR)
    chance = np.full(BANDS, _FAR_BELOW)
    chance[max(0, lowest - _NEXT_BANDS) : lowest] = _BELOW
    chance[lowest:] = np.clip(wish[lowest:] / wish[lowest], 0.1, 1.0)
    return chance


def _falling(values: Floats, weights: Floats) -> Floats:
    """Return the values made to fall with the band: neighbours that rise are pooled."""
    pools: list[tuple[float, float, int]] = []
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        total, size = weight, 1
        while pools and pools[-1][0] < value:
            before, before_weight, before_size = pools.pop()
            value = (value * total + before * before_weight) / (total + before_weight)
            total, size = total + before_weight, size + before_size
        pools.append((value, total, size))
    return np.array([value for value, _, size in pools for _ in range(size)])


def guess_by_cosine(cosines: Floats) -> Floats:
    """Return a guess at the share of wrong neighbours before anything is known."""
    guess: Floats = 1 / (1 + np.exp(-40 * (0.87 - cosines)))
    return guess


def guess_by_odds(odds: Floats) -> Floats:
    """Return the share of wrong neighbours that log-odds of right ones stand for."""
    guess: Floats = 1 / (1 + np.exp(odds))
    return guess


def weight_of(chance: float) -> float:
    """Return how many texts a label stands for that was taken with a chance."""
    return 1 / chance if math.isfinite(chance) and chance > 0 else 0.0
