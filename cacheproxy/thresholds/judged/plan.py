"""Which pairs go to the judge: those that tell most about the threshold that is nearest to opening.

A pair is labelled with a probability that depends on its score's band alone, so that labels of one
band are a fair sample of it. First a strict threshold is aimed at, which opens soon, and then the
next looser one. Above it the probability grows with the band's share of wrong ones and
with the labels that it lacks; below it few are labelled, to learn how wrong they are. What of the
allowance that leaves goes to all bands.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cacheproxy.thresholds.bands import BANDS

Floats = NDArray[np.float64]

_PRIOR_LABELS = 0.5
"""What a guess about a band is worth."""

_STEPS, _LEAST_SLOPE = 8, 0.1
"""Of Newton's method, and of the bent curve."""

_FIRST_SHARE = 0.25
"""The share of lookups above the threshold that is aimed at first: about what the allowance pays
labels for. A looser one has the labels spread thin, and takes longer to open (Quora's groups, judge
.90/.05: 8,000 requests, and 6,700 with this, the median of 72 simulated runs)."""

_STEP = 1.3
"""How many times as much is to be served next."""

_RISK_POWER = 0.25
"""Of a band's risk, in its chance: less than Neyman's 0.5, as bands without an error are bounded by
the one that was labelled least."""

_LEAST_ERROR = 0.004
"""Added to a band's risk, so that one where no error is expected is labelled all the same."""

_LEAST_WANT = 0.3
_MORE, _LEAST_MORE = 0.3, 50.0
"""Bands that lack labels come first, as all labels above a threshold count by their bands' traffic.
What they lack is of so many labels more; bands that have enough keep this share of their chance."""

_BELOW = 0.15
"""Labels below the threshold, as a share of those above it."""

_LEAST_CHANCE = 0.01

_NEAR_BANDS = 10
_NEAR_TIMES = 4.0
"""The bands just below are labelled so many times as often as those further down."""


@dataclass(frozen=True)
class Known:
    """What is known by band, float64 [BANDS] each.

    Attributes:
        guess: shares of wrong ones to begin with.
        traffic: texts, relatively.
        labels: labels, as equally weighty ones.
        wrong: the estimated wrong ones among them.
    """

    guess: Floats
    traffic: Floats
    labels: Floats
    wrong: Floats


class Plan(NamedTuple):
    """Which pairs are to be labelled.

    Attributes:
        chances: float64 [BANDS], each band's probability of a label, at most 1.
        needed: about how many labels in all certify the threshold that is aimed at.
    """

    chances: Floats
    needed: float


def plan(
    known: Known,
    certified: int | None,
    *,
    max_error: float,
    sensitivity: float,
    false_rejects: float,
    error: float,
) -> Plan:
    """Return what to label.

    Args:
        known: by band.
        certified: the lowest band that may be served, or None.
        max_error: what is promised.
        sensitivity, false_rejects: of the judge.
        error: the probability with which a threshold may be mistaken.
    """
    risk = _risk(known)
    texts = known.traffic + 1e-3 * known.traffic.sum() / BANDS + 1e-9
    needed = _needed(risk, texts, max_error, sensitivity, false_rejects, error)
    lowest = _lowest(_from_above(texts), np.isfinite(needed), certified)
    chance = np.zeros(BANDS)
    wish = (risk[lowest:] + _LEAST_ERROR) ** _RISK_POWER
    wish *= np.maximum(_LEAST_WANT, _want(wish * texts[lowest:], known.labels[lowest:]))
    chance[lowest:] = wish / wish.max()
    times = np.ones(lowest)
    times[max(0, lowest - _NEAR_BANDS) :] = _NEAR_TIMES
    if lowest:
        wanted = _BELOW * float(chance[lowest:] @ texts[lowest:])
        chance[:lowest] = np.minimum(1.0, times * wanted / float(times @ texts[:lowest]))
    return Plan(np.maximum(chance, _LEAST_CHANCE), float(needed[lowest]))


def _want(due: Floats, labels: Floats) -> Floats:
    """Return how much of the next labels' due share each band still lacks, float64 [n], at most 1.

    Args:
        due: labels that the bands ought to have in the end, relatively.
        labels: those that they have.
    """
    more = max(_LEAST_MORE, _MORE * float(labels.sum()))
    # The level up to which that many labels fill all bands, those that need most first.
    order = np.argsort(labels / due)
    filled = (more + np.cumsum(labels[order])) / np.cumsum(due[order])
    level = float(filled.min())
    lacking = np.maximum(0.0, level * due - labels) / (level * due)
    found: Floats = lacking / lacking.max()
    return found


def _from_above(values: Floats) -> Floats:
    found: Floats = np.cumsum(values[::-1])[::-1]
    return found


def _needed(
    risk: Floats,
    texts: Floats,
    max_error: float,
    sensitivity: float,
    false_rejects: float,
    error: float,
) -> Floats:
    """Return how many labels above each band certify it, float64 [BANDS]; infinite if none can."""
    wrong = np.minimum(_from_above(risk * texts) / _from_above(texts), 0.999)
    seen = np.clip(wrong * sensitivity + (1 - wrong) * false_rejects, 1e-6, 0.999)
    most = max_error * sensitivity + (1 - max_error) * false_rejects
    with np.errstate(divide="ignore", invalid="ignore"):
        apart = seen * np.log(seen / most) + (1 - seen) * np.log((1 - seen) / (1 - most))
        found: Floats = np.where(seen < most, -math.log(error) / apart, np.inf)
    return found


def _lowest(total: Floats, hopeful: NDArray[np.bool_], certified: int | None) -> int:
    """Return the band of the threshold to aim at: the strictest one that serves enough.

    A looser one where that can be hoped for, else the loosest one that may ever be certified.
    """
    share = total / total[0]
    least = _FIRST_SHARE if certified is None else min(1.0, _STEP * float(share[certified]))
    enough = np.flatnonzero(hopeful & (share >= least))
    if len(enough):
        return int(enough[-1])
    rest = np.flatnonzero(hopeful)
    return int(rest[0]) if len(rest) else BANDS - 1


def _risk(known: Known) -> Floats:
    """Return each band's share of wrong ones: the guess, its log-odds bent to what was seen.

    A curve of two numbers: what single bands seem to say is mostly chance while labels are few.
    """
    guess = np.clip(known.guess, 1e-4, 1 - 1e-4)
    odds = np.log(guess / (1 - guess))
    rows = np.stack([np.ones_like(odds), odds], axis=1)
    labels = known.labels + _PRIOR_LABELS
    wrong = np.minimum(known.wrong, known.labels) + _PRIOR_LABELS * guess
    found = np.array([0.0, 1.0])
    for _ in range(_STEPS):
        risk = 1 / (1 + np.exp(-np.clip(rows @ found, -20, 20)))
        curve = (rows * (labels * risk * (1 - risk))[:, None]).T @ rows + 1e-6 * np.eye(2)
        found += np.clip(np.linalg.solve(curve, rows.T @ (wrong - labels * risk)), -1, 1)
    found[1] = max(found[1], _LEAST_SLOPE)
    result: Floats = 1 / (1 + np.exp(-np.clip(rows @ found, -20, 20)))
    return result


def guess_by_cosine(cosines: Floats) -> Floats:
    """Return a guess at the share of wrong neighbours before anything is known."""
    guess: Floats = 1 / (1 + np.exp(-45 * (0.86 - cosines)))
    return guess


def guess_by_odds(odds: Floats) -> Floats:
    """Return the share of wrong neighbours that log-odds of right ones stand for."""
    guess: Floats = 1 / (1 + np.exp(odds))
    return guess
