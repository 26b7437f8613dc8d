"""How often a chat threshold opens that never should: the promise's confidence, by simulation.

Scores say nothing of a pair, and exactly so many neighbours are wrong as is promised at most, or a
few more. So every threshold by every score is on the border, and each look at each of them is a
chance to be mistaken. Only the statistics are run: labels and controls reach `JudgedThresholds` as
from another server, in steps as long as it waits between looks.
"""

import random
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cacheproxy.thresholds.bands import BANDS, EDGES
from cacheproxy.thresholds.judged.asking import Reply, outcome_of
from cacheproxy.thresholds.judged.evidence import (
    CONTROL,
    FEATURES,
    LABEL,
    Evidence,
    Items,
    Kind,
    Outcome,
)
from cacheproxy.thresholds.judged.look import cosine_bands
from cacheproxy.thresholds.judged.thresholds import JudgedThresholds

_OWN_AT_FIRST, _OWN = 30, 0.2
_KNOWN_AT_FIRST, _KNOWN = 48, 0.05
"""Controls of fresh answers and of wrong pairs, the first ones and those for each label."""

_SPREAD = 6.0
"""Of cosines between 0.5 and 1: the exponent of a beta distribution, most of them near 1."""

_LEAST_STEP, _STEP, _MOST_STEP = 16, 0.05, 40


@dataclass(frozen=True)
class Border:
    """Traffic on which no threshold may ever be certified, but with the error probability.

    Attributes:
        wrong: the share of wrong neighbours, whatever their score.
        sensitivity, false_rejects: of a judge that is asked once.
        labels: how many there are to be.
    """

    wrong: float = 0.02
    sensitivity: float = 1.0
    false_rejects: float = 0.0
    labels: int = 1_000


def opens_at(border: Border, seed: int, *, confidence: float = 0.95) -> int | None:
    """Return the labels after which it opened, None if it never did."""
    rng = np.random.default_rng(seed)
    labels = _labels(border, rng)
    controls = _controls(border, rng)
    bands = cosine_bands(labels["features"][:, 0])
    thresholds = JudgedThresholds(
        max_error=0.02,
        confidence=confidence,
        random=random.Random(seed).random,  # noqa: S311
    )
    done = 0
    while done < border.labels:
        more = int(min(_MOST_STEP, max(_LEAST_STEP, _STEP * done)))
        fresh = labels[done : done + more]
        asked = controls[(controls["at"] >= done) & (controls["at"] < done + more)]
        done += len(fresh)
        traffic = np.bincount(bands[:done], minlength=BANDS).astype(np.float64)
        thresholds.adopt(Evidence(0, fresh, asked, traffic, done), float(done))
        if thresholds.is_open:
            return done
    return None


def rejected(rate: float, replies: tuple[Reply, ...] = ()) -> float:
    """Return the probability that a pair is rejected in the end.

    Args:
        rate: with which each question about it, independently, is answered by a rejection.
        replies: the first ones.
    """
    outcome = outcome_of(replies)
    if outcome is not None:
        return float(outcome == Outcome.REJECTED)
    again = rejected(rate, (*replies, "reject"))
    return rate * again + (1 - rate) * rejected(rate, (*replies, "accept"))


def _labels(border: Border, rng: np.random.Generator) -> Items:
    count = border.labels
    features = rng.standard_normal((count, FEATURES))
    features[:, 0] = EDGES[0] + (1 - EDGES[0]) * rng.beta(_SPREAD, 1, count)
    is_wrong = rng.random(count) < border.wrong
    of_wrong, of_right = rejected(border.sensitivity), rejected(border.false_rejects)
    has_own = rng.random(count) < _OWN
    has_own[:_OWN_AT_FIRST] = True
    own = np.where(_draw(rng, of_right, count), Outcome.REJECTED, Outcome.ACCEPTED)
    labels = np.zeros(count, LABEL)
    labels["id"] = rng.integers(1, 2**63, count)
    labels["at"] = np.arange(count)
    labels["weight"] = 1
    labels["half"] = rng.integers(0, 2, count)
    labels["is_rejected"] = rng.random(count) < np.where(is_wrong, of_wrong, of_right)
    labels["is_judged"] = 1
    labels["control"] = np.where(has_own, own, Outcome.NONE)
    labels["features"] = features
    return labels


def _controls(border: Border, rng: np.random.Generator) -> Items:
    later = int(_KNOWN * border.labels)
    count = _KNOWN_AT_FIRST + later
    controls = np.zeros(count, CONTROL)
    controls["id"] = rng.integers(1, 2**63, count)
    controls["at"][_KNOWN_AT_FIRST:] = np.linspace(1, border.labels - 1, later)
    controls["kind"] = np.where(np.arange(count) % 2, Kind.HARD, Kind.TRAFFIC)
    is_rejected = _draw(rng, rejected(border.sensitivity), count)
    controls["outcome"] = np.where(is_rejected, Outcome.REJECTED, Outcome.ACCEPTED)
    return controls


def _draw(rng: np.random.Generator, rate: float, count: int) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = rng.random(count) < rate
    return found
