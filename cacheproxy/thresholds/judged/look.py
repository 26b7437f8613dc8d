"""One look at the evidence: what it certifies by which score, and what to label next.

A pure function of labels and traffic. The cosine is compared with a score that is learned from the
labels; the learned one is used only where it certifies clearly more hits.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cacheproxy.thresholds.bands import BANDS, EDGES
from cacheproxy.thresholds.certificate import Certificate, certify
from cacheproxy.thresholds.judged import plan
from cacheproxy.thresholds.judged.evidence import Items
from cacheproxy.thresholds.judged.learned import LearnedScore, band_of_odds, learn, odds_of_band
from cacheproxy.thresholds.judged.limits import Counts, JudgedLabels, Sensitivity, count, texts_of

Floats = NDArray[np.float64]
Bands = NDArray[np.int64]

_BETTER = 1.1
"""Times the cosine's hits that the learned score must certify to be used."""

_LEAST_ODDS_CHANCE = 0.2
"""So that no label weighs more than five times as much as others of its band of cosines."""

_FIRST_COSINE, _FIRST_CHANCE = 0.86, 0.1
"""Before the first look, neighbours that are nearer are labelled, and this share of others."""

_COSINES = np.array([-1.0, *EDGES])
_ODDS = np.array([odds_of_band(band) for band in range(BANDS)])


@dataclass(frozen=True)
class Rates:
    """What is promised, and what is known of the judge.

    Attributes:
        max_error: what is promised.
        confidence: of this look.
        sensitivity: the share of wrong answers that it rejects.
        false_rejects: the share of right ones, estimated.
    """

    max_error: float
    confidence: float
    sensitivity: Sensitivity
    false_rejects: float

    @property
    def rejected_at_most(self) -> float:
        """The share that is rejected where the promise is just kept."""
        rejected = self.max_error * self.sensitivity.rate
        return max(0.002, rejected + (1 - self.max_error) * self.false_rejects)

    @property
    def missed_at_most(self) -> float:
        """The share of wrong answers that are accepted, at most."""
        return min(0.9, max(0.05, 1 - self.sensitivity.lower))


@dataclass(frozen=True)
class Look:
    """What was found.

    Attributes:
        certificate: the loosest threshold that is certified, or the best try.
        learned: the learned score, if there are enough labels; it picks the neighbour.
        uses_learned: whether the certificate is on it; else it is on the cosine.
        chances: float64 [BANDS], of a label, by the cosine's band.
        odds_chances: float64 [BANDS], of a label, by the learned score's band.
    """

    certificate: Certificate
    learned: LearnedScore | None
    uses_learned: bool
    chances: Floats
    odds_chances: Floats


FIRST = Look(
    Certificate(None, 0.0, 1.0, 0.0, float("inf")),
    None,
    uses_learned=False,
    chances=np.where(_COSINES >= _FIRST_COSINE, 1.0, _FIRST_CHANCE),
    odds_chances=np.ones(BANDS),
)
"""Before there is any evidence."""


def look_at(
    labels: Items, traffic: Floats, rates: Rates, known: LearnedScore | None = None
) -> Look:
    """Return what labels (`LABEL` [n]) certify, given the traffic by the cosine's band.

    `known` is a score for want of one that these labels teach.
    """
    learned = learn(labels) or known
    bands = cosine_bands(labels["features"][:, 0])
    texts = texts_of(labels, bands, traffic)
    counts = count(labels, bands, texts)
    by_cosine = _certify(counts, rates)
    chances = _plan(counts, plan.guess_by_cosine(_COSINES), rates)
    if learned is None:
        return Look(by_cosine, None, False, chances, np.ones(BANDS))
    odds_bands = band_of_odds(learned.odds(labels["features"], labels["half"].astype(np.int64)))
    odds_counts = count(labels, odds_bands, texts)
    by_odds = _certify(odds_counts, rates)
    odds_chances = _plan(odds_counts, plan.guess_by_odds(_ODDS), rates)
    # Of each band of cosines, the share of texts that the learned score wants labelled.
    wanted = np.bincount(bands, texts * odds_chances[odds_bands], BANDS)
    share = wanted / np.maximum(np.bincount(bands, texts, BANDS), 1e-9)
    is_better = _hits(by_odds, odds_counts) > _BETTER * _hits(by_cosine, counts)
    return Look(
        by_odds if is_better else by_cosine,
        learned,
        is_better,
        np.maximum(chances, np.minimum(1.0, 2 * share)),
        np.maximum(odds_chances, _LEAST_ODDS_CHANCE),
    )


def cosine_bands(cosines: NDArray[np.floating]) -> Bands:
    """Return the bands of cosines, int64 [n], rounded as labels keep them: to half precision."""
    rounded = cosines.astype(np.float16).astype(np.float64)
    bands: Bands = np.searchsorted(EDGES, rounded, side="right")
    return bands


def _certify(counts: Counts, rates: Rates) -> Certificate:
    return certify(
        counts.traffic.tolist(),
        counts.labels.tolist(),
        counts.rejected.tolist(),
        max_error=rates.max_error,
        confidence=rates.confidence,
        limits=JudgedLabels(counts, rates.sensitivity, rates.confidence),
    )


def _hits(certificate: Certificate, counts: Counts) -> float:
    """Return the texts above the certified threshold."""
    return 0.0 if certificate.band is None else float(counts.traffic[certificate.band :].sum())


def _plan(counts: Counts, guess: Floats, rates: Rates) -> Floats:
    rate, false = rates.sensitivity.rate or 1.0, rates.false_rejects
    wrong = np.maximum(0.0, counts.rejected - false * counts.judged) / max(rate - false, 0.2)
    return plan.plan(
        plan.Known(guess, counts.traffic, counts.labels, wrong),
        max_error=rates.max_error,
        sensitivity=rate,
        false_rejects=false,
        error=1 - rates.confidence,
    )
