"""How many neighbours are wrong, by the verdicts of a judge whose mistakes are measured.

Of wrong pairs the judge rejects a share `s`, of right ones a share `f`. With a share `w` of wrong
ones it rejects r = w s + (1 - w) f (Rogan and Gladen, 1978, American Journal of Epidemiology
107:71). That w is at most d is certified where

    theta = r - (1 - d) f - d s

is negative with confidence. Its limit is put together from those of the three rates by MOVER
(Zou and Donner, 2008, Statistics in Medicine 27:1693), which wastes less than adding them up:

    theta + sqrt((r_U - r)^2 + ((1 - d)(f - f_L))^2 + (d (s - s_L))^2) <= 0

The limits of the rates hold at all times together (`anytime`), and so does what is made of them.

Pairs whose answers were seen to be the same without the judge count as accepted. Their controls
cannot be rejected: with a share `j` of judged pairs, (1 - d) f becomes (j - d) f, and of d s only
what is not hidden behind such a short cut is expected to be rejected.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cacheproxy.thresholds.bands import BANDS
from cacheproxy.thresholds.bounds import Stratum, as_seen, rate_of, with_one_more
from cacheproxy.thresholds.judged.anytime import least_expected, least_rate, most_expected
from cacheproxy.thresholds.judged.evidence import Items, Kind, Outcome

Floats = NDArray[np.float64]

SHORT_CUT_MISSES = 0.07
"""Of different answers, at most this share is taken for the same without the judge: the rest of
`agreement.SENSITIVITY`, which says how that was measured."""

_LEAST_OF_A_KIND = 20
_APART = 2.0
"""Standard errors between two kinds of wrong pairs from which on only the worse one counts."""

USUAL_ERROR = 0.05
"""The probability of a mistake in what is shown of a judge."""

_STEPS = 24
"""Halvings of an interval of 1 until an upper limit is found."""


class Sensitivity(NamedTuple):
    """The share of wrong pairs that the judge rejects.

    Attributes:
        rate: the estimate.
        lower: its lower limit, but for the probability `USUAL_ERROR`.
        trials: controls that it was estimated from; 0 where the limit is simply known.
    """

    rate: float
    lower: float
    trials: int = 0

    def lower_but_for(self, error: float) -> float:
        """Return the lower limit that holds at all times, but for this probability."""
        if not self.trials:
            return self.lower
        return least_rate(round(self.rate * self.trials), self.trials, error)


def _measured(rejected: int, asked: int) -> Sensitivity:
    rate = rejected / asked if asked else 0.0
    return Sensitivity(rate, least_rate(rejected, asked, USUAL_ERROR), asked)


def sensitivity_of(controls: Items) -> Sensitivity:
    """Return what the shipped pairs and the traffic's own show; the worse where they differ.

    One kind alone is not believed: what is no natural near miss may be easier to see than one.
    They differ where their rates are further apart than chance mostly brings.
    """
    found = []
    for kind in (Kind.HARD, Kind.TRAFFIC):
        outcomes = controls["outcome"][controls["kind"] == kind]
        rejected = int((outcomes == Outcome.REJECTED).sum())
        found.append(_measured(rejected, rejected + int((outcomes == Outcome.ACCEPTED).sum())))
    one, two = found
    if min(one.trials, two.trials) < _LEAST_OF_A_KIND:
        return Sensitivity(min(one.rate, two.rate), 0.0)
    both = one.trials + two.trials
    rate = (one.rate * one.trials + two.rate * two.trials) / both
    error = math.sqrt(max(rate * (1 - rate), 1 / both) * (1 / one.trials + 1 / two.trials))
    if abs(one.rate - two.rate) > _APART * error:
        return min(found, key=lambda sensitivity: sensitivity.lower)
    return _measured(round(rate * both), both)


class Block(NamedTuple):
    """Adjacent bands whose counts are pooled, from `low` up to but excluding `high`."""

    low: int
    high: int
    stratum: Stratum


class Estimate(NamedTuple):
    """The share of wrong ones in some blocks' traffic.

    Attributes:
        error: the estimate.
        upper: its upper limit.
    """

    error: float
    upper: float


@dataclass(frozen=True)
class Counts:
    """Verdicts by band of scores, as counts of equally weighty ones.

    Attributes:
        traffic: float64 [BANDS], texts that the labels stand for, relatively.
        labels, rejected: float64 [BANDS].
        judged: float64 [BANDS], labels that took the judge.
        controls, false_rejects: float64 [BANDS], own fresh answers, and those that were rejected.
    """

    traffic: Floats
    labels: Floats
    rejected: Floats
    judged: Floats
    controls: Floats
    false_rejects: Floats


def texts_of(labels: Items, cosine_bands: NDArray[np.int64], traffic: Floats) -> Floats:
    """Return how many texts each label (`LABEL` [n]) stands for, float64 [n].

    All labels of a band of cosines stand for all its traffic, by their weights: how often a band
    was labelled may have changed over time.
    """
    weights = labels["weight"].astype(np.float64)
    of_band = np.bincount(cosine_bands, weights, BANDS)
    per_weight = traffic / np.maximum(of_band, 1e-9)
    found: Floats = np.maximum(weights * per_weight[cosine_bands], 1e-9)
    return found


def count(labels: Items, bands: NDArray[np.int64], weights: Floats) -> Counts:
    """Return the counts of labels (`LABEL` [n]) by their bands, int64 [n].

    Labels of unequal weight in one band are worth fewer equal ones: (sum w)^2 / sum w^2.
    `weights` are as `texts_of` returns them.
    """
    has_control = labels["control"] <= Outcome.REJECTED

    def total(which: NDArray[np.bool_] | None, squares: bool = False) -> Floats:
        chosen = weights**2 if squares else weights
        if which is not None:
            chosen = chosen * which
        result: Floats = np.bincount(bands, chosen, BANDS).astype(np.float64)
        return result

    traffic, asked = total(None), total(has_control)
    worth = traffic**2 / np.maximum(total(None, squares=True), 1e-12)
    asked_worth = asked**2 / np.maximum(total(has_control, squares=True), 1e-12)
    per_text = worth / np.maximum(traffic, 1e-12)
    per_asked = asked_worth / np.maximum(asked, 1e-12)
    return Counts(
        traffic=traffic,
        labels=worth,
        rejected=total(labels["is_rejected"] == 1) * per_text,
        judged=total(labels["is_judged"] == 1) * per_text,
        controls=asked_worth,
        false_rejects=total(labels["control"] == Outcome.REJECTED) * per_asked,
    )


class JudgedLabels:
    """How many neighbours above a threshold are wrong, by the counts of one score's bands."""

    def __init__(self, counts: Counts, sensitivity: Sensitivity) -> None:
        self._counts = counts
        self._sensitivity = sensitivity

    def estimate(self, blocks: Sequence[Block], error: float) -> Estimate:
        """Return the share of wrong neighbours, with its upper limit.

        The limit holds at all times together, but for the probability `error`.
        """
        rates = self._rates(blocks, error)
        rejected, rejected_upper, false, false_lower, judged = rates
        rate, lower = self._sensitivity.rate, self._sensitivity.lower_but_for(error)
        if lower <= false:
            return Estimate(1.0, 1.0)

        def excess(share: float) -> float:
            """Return the upper limit of theta, were `share` of the neighbours wrong."""
            seen = share - min(1 - judged, SHORT_CUT_MISSES * share)
            right = max(0.0, judged - share)
            theta = rejected - right * false - seen * rate
            return theta + math.hypot(
                rejected_upper - rejected, right * (false - false_lower), seen * (rate - lower)
            )

        low, high = 0.0, 1.0
        if excess(high) > 0:
            return Estimate(1.0, 1.0)
        for _ in range(_STEPS):
            middle = (low + high) / 2
            if excess(middle) <= 0:
                high = middle
            else:
                low = middle
        wrong = (rejected - judged * false) / (rate - false)
        return Estimate(min(1.0, max(0.0, wrong)), high)

    def marginal(self, block: Block) -> float:
        """Return a block's share of wrong ones, with half a rejection more."""
        _, _, false, _, judged = self._rates([block], 0.05)
        stratum = block.stratum
        rejected = (stratum.errors + 0.5) / (stratum.labels + 1)
        return max(0.0, rejected - judged * false) / max(self._sensitivity.rate - false, 0.05)

    def _rates(
        self, blocks: Sequence[Block], error: float
    ) -> tuple[float, float, float, float, float]:
        """Return r, its upper limit, f, its lower limit, and the share of judged labels."""
        strata = [block.stratum for block in blocks]
        controls, judged = [], []
        for block in blocks:
            bands = slice(block.low, block.high)
            asked = float(self._counts.controls[bands].sum())
            false = float(self._counts.false_rejects[bands].sum())
            controls.append(Stratum(block.stratum.traffic, asked, false))
            in_judge = float(self._counts.judged[bands].sum())
            judged.append(Stratum(block.stratum.traffic, block.stratum.labels, in_judge))
        most = with_one_more(strata, at_worst=False)
        least = as_seen(controls)
        return (
            rate_of(strata),
            1.0 if most is None else min(1.0, most.scale * most_expected(most.errors, error)),
            rate_of(controls),
            0.0 if least is None else least.scale * least_expected(least.errors, error),
            min(1.0, rate_of(judged)),
        )
