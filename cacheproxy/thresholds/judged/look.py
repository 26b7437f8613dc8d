"""One look at the evidence: what it certifies by which score, and what to label next.

A pure function of labels, traffic, and what was found before. The cosine is compared with a score
that is learned from the labels; the learned one is used only where it certifies clearly more hits.
Scores are learned anew only as labels double: each is one more that could be certified by chance.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cacheproxy.thresholds.bands import BANDS, EDGES
from cacheproxy.thresholds.certificate import Certificate
from cacheproxy.thresholds.judged import plan, spending
from cacheproxy.thresholds.judged.descent import Claim, descend
from cacheproxy.thresholds.judged.evidence import Evidence
from cacheproxy.thresholds.judged.learned import LearnedScore, band_of_odds, learn, odds_of_band
from cacheproxy.thresholds.judged.limits import Counts, Sensitivity, count, texts_of

Floats = NDArray[np.float64]
Bands = NDArray[np.int64]

_BETTER = 1.1
"""Times the cosine's hits that the learned score must certify to be used."""

_SOONER = 1.3
"""Times fewer labels that the learned score must need for labels to be chosen by it."""

_LEAST_ODDS_CHANCE = 0.2
"""So that no label weighs more than five times as much as others of its band of cosines."""

_LEAST_CHANCE = 0.02

_FIRST_COSINE, _FIRST_CHANCE = 0.86, 0.1
"""Before the first look, neighbours that are nearer are labelled, and this share of others."""

_COSINES = np.array([-1.0, *EDGES])
_ODDS = np.array([odds_of_band(band) for band in range(BANDS)])


@dataclass(frozen=True)
class Rates:
    """What is promised, and what is known of the judge.

    Attributes:
        max_error: what is promised.
        error: the probability with which the promise may ever be broken.
        sensitivity: the share of wrong answers that it rejects.
        false_rejects: the share of right ones, estimated.
    """

    max_error: float
    error: float
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
        fits: how many scores were learned so far.
        uses_learned: whether the certificate is on it; else it is on the cosine.
        chances: float64 [BANDS], of a label, by the cosine's band.
        odds_chances: float64 [BANDS], of a label, by the learned score's band.
    """

    certificate: Certificate
    learned: LearnedScore | None
    fits: int
    uses_learned: bool
    chances: Floats
    odds_chances: Floats


FIRST = Look(
    Certificate(None, 0.0, 1.0, 0.0, float("inf")),
    None,
    0,
    uses_learned=False,
    chances=np.where(_COSINES >= _FIRST_COSINE, 1.0, _FIRST_CHANCE),
    odds_chances=np.ones(BANDS),
)
"""Before there is any evidence."""


class _Scored(NamedTuple):
    """What one score certifies; `learned` is None for the cosine."""

    learned: LearnedScore | None
    bands: Bands
    counts: Counts
    certificate: Certificate

    @property
    def hits(self) -> float:
        """Texts above the certified threshold, relatively."""
        band = self.certificate.band
        return 0.0 if band is None else float(self.counts.traffic[band:].sum())


def look_at(evidence: Evidence, rates: Rates, before: Look) -> Look:
    """Return what the evidence certifies; `before` is what the look before this one found."""
    window = spending.window_of(evidence.seen)
    labels = evidence.labels[-window.labels :]
    error = rates.error * window.share
    halves = labels["half"].astype(np.int64)
    bands = cosine_bands(labels["features"][:, 0])
    texts = texts_of(labels, bands, evidence.traffic)

    def scored(learned: LearnedScore | None, parts: Floats) -> _Scored:
        of_score = (
            bands if learned is None else band_of_odds(learned.odds(labels["features"], halves))
        )
        counts = count(labels, of_score, texts)
        is_held = learned is before.learned if before.uses_learned else learned is None
        held = before.certificate.band if is_held else None
        claim = Claim(parts, held, rates.error, rates.max_error)
        return _Scored(learned, of_score, counts, descend(counts, rates.sensitivity, claim))

    cosine = scored(None, spending.by_cosine(error))
    fits, by_learned = before.fits, []
    if before.learned is not None:
        by_learned = [scored(before.learned, spending.by_odds(error, fits))]
    if spending.is_due(fits, evidence.seen) and (learned := learn(labels)) is not None:
        fits += 1
        by_learned.append(scored(learned, spending.by_odds(error, fits)))
    by_cosine = _plan(cosine, plan.guess_by_cosine(_COSINES), rates)
    if not by_learned:
        return Look(cosine.certificate, None, fits, False, by_cosine.chances, np.ones(BANDS))
    # The newest one, unless an older one is certified and it is not.
    best = max(reversed(by_learned), key=lambda scored: scored.hits)
    by_odds = _plan(best, plan.guess_by_odds(_ODDS), rates)
    chances, odds_chances = by_cosine.chances, np.ones(BANDS)
    is_better = best.hits > _BETTER * cosine.hits
    if is_better or _SOONER * by_odds.needed < by_cosine.needed:
        odds_chances = np.maximum(by_odds.chances, _LEAST_ODDS_CHANCE)
        # Of each band of cosines, twice the share of texts that the learned score wants labelled.
        wanted = np.bincount(bands, texts * by_odds.chances[best.bands], BANDS)
        share = wanted / np.maximum(np.bincount(bands, texts, BANDS), 1e-9)
        chances = np.clip(2 * share, _LEAST_CHANCE, 1.0)
    return Look(
        best.certificate if is_better else cosine.certificate,
        best.learned,
        fits,
        is_better,
        chances,
        odds_chances,
    )


def cosine_bands(cosines: NDArray[np.floating]) -> Bands:
    """Return the bands of cosines, int64 [n], rounded as labels keep them: to half precision."""
    rounded = cosines.astype(np.float16).astype(np.float64)
    bands: Bands = np.searchsorted(EDGES, rounded, side="right")
    return bands


def _plan(scored: _Scored, guess: Floats, rates: Rates) -> plan.Plan:
    counts = scored.counts
    rate, false = rates.sensitivity.rate or 1.0, rates.false_rejects
    wrong = np.maximum(0.0, counts.rejected - false * counts.judged) / max(rate - false, 0.2)
    return plan.plan(
        plan.Known(guess, counts.traffic, counts.labels, wrong),
        scored.certificate.band,
        max_error=rates.max_error,
        sensitivity=rate,
        false_rejects=false,
        error=spending.usual_part(rates.error),
    )
