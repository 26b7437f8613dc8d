"""The threshold of one namespace under one model that a judge's verdicts earn.

P(wrong | semantic hit) <= max_error, or no semantic hits. A pure state machine, closed at first.
It looks at the evidence whenever there is some tenth more of it. What it certifies holds at all
looks together (`anytime`), and for all thresholds that it tries (`spending`), as whoever looks and
tries often finds luck sooner or later. Between looks alarms watch: what
the judge rejects of hits, and what it accepts of pairs that are known to be wrong. A judge that has
changed makes all that it has said before doubtful: then the evidence is thrown away.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cacheproxy.thresholds.alarm import Alarm
from cacheproxy.thresholds.bands import BANDS, EDGES, lowest_score
from cacheproxy.thresholds.certificate import Certificate
from cacheproxy.thresholds.judged import trust
from cacheproxy.thresholds.judged.evidence import (
    CONTROL,
    LABEL,
    Evidence,
    Kind,
    Outcome,
)
from cacheproxy.thresholds.judged.learned import LearnedScore, band_of_odds, odds_of_band
from cacheproxy.thresholds.judged.limits import Sensitivity
from cacheproxy.thresholds.judged.look import FIRST, Look, Rates, cosine_bands, look_at

CANDIDATES = 4
"""Neighbours of which the best by the learned score is taken."""

_FIRST_LOOK, _MORE = 60, 1.05
_MOST_WAIT = 40
"""Labels until the first look, times as many until the next, and at most so many more."""

_HITS_TIMES = (2.0, 6.0)
_SUSPEND, _RESUME, _REFUTED = 60.0, 2.0, 5_000.0
_MISSED_TIMES, _MISSED_REFUTED = 2.5, 60.0
"""Accepted wrong pairs: how many times as many the alarm looks for, and its height that refutes."""

_NEVER = BANDS

Draw = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Pick:
    """The neighbour that is served or not, and what its pair looks like.

    Attributes:
        index: which of the candidates.
        features: float32 [FEATURES]; the first one is the cosine.
        half: 0 or 1, by a hash of the neighbour's key.
        cosine_band: of its cosine.
        odds_band: of its learned score; -1 while there is none.
    """

    index: int
    features: NDArray[np.float32]
    half: int
    cosine_band: int
    odds_band: int


class Standing(NamedTuple):
    """What may be told of the threshold.

    Attributes:
        score: "cosine" or "learned".
        threshold: the lowest score that is served, a cosine or a probability; None while closed.
        is_suspended: whether the evidence is in doubt.
        certificate: of what is served, or of the best try.
        false_rejects: the share of right answers that the judge rejects, estimated.
        sensitivity: the share of wrong ones.
        aside: why the tier steps aside, or None.
    """

    score: str
    threshold: float | None
    is_suspended: bool
    certificate: Certificate
    false_rejects: float
    sensitivity: Sensitivity
    aside: str | None


class JudgedThresholds:
    """See above; the order of calls is told in the package's docstring."""

    def __init__(
        self,
        *,
        max_error: float,
        confidence: float,
        random: Draw,
        assumed: Sensitivity | None = None,
        pooled: Callable[[], LearnedScore | None] = lambda: None,
    ) -> None:
        """Start closed.

        Args:
            max_error, confidence: what is promised.
            random: uniform in [0, 1).
            assumed: the sensitivity, where no judge is asked and answers are only compared; then
                no false rejects are taken out.
            pooled: gives a score learned elsewhere, to go by until there are labels enough.
        """
        self.max_error = max_error
        self.evidence = Evidence()
        self.alarms = {"hits": 0, "judge": 0, "refuted": 0}
        self.looks = 0
        self.aside: str | None = None
        self.is_suspended = False
        self._error = 1 - confidence
        self._draw = random
        self._assumed = assumed
        self._pooled = pooled
        self._news, self._offered = Evidence(), Evidence()
        self.offer_number: int | None = None
        self._shared_epoch: int | None = None
        self._found: Look = FIRST
        self._next_look: float = _FIRST_LOOK
        self._passed = np.zeros(BANDS)
        self._start_over()

    def promise_anew(self, max_error: float, confidence: float) -> None:
        """Keep another promise on the same evidence; closed until the look at the next label."""
        self.max_error, self._error = max_error, 1 - confidence
        self.band, self._next_look = _NEVER, 0.0

    # A request's way.

    def rank(self, features: Sequence[NDArray[np.float32]], halves: Sequence[int]) -> Pick:
        """Return the best of 1 to `CANDIDATES` neighbours; the nearest comes first."""
        best, odds_band = 0, -1
        if (learned := self._found.learned) is not None:
            odds = learned.odds(np.stack(features), np.array(halves))
            best = int(odds.argmax())
            odds_band = int(band_of_odds(odds[best : best + 1])[0])
        cosine_band = int(cosine_bands(features[best][:1])[0])
        self._passed[cosine_band] += 1
        return Pick(best, features[best], halves[best], cosine_band, odds_band)

    def _band(self, pick: Pick) -> int:
        return pick.odds_band if self._found.uses_learned else pick.cosine_band

    def serve(self, pick: Pick) -> bool:
        """Return whether the neighbour may be served."""
        return self.is_open and self._band(pick) >= self.band

    @property
    def uses_learned(self) -> bool:
        """Whether the learned score decides, and not the cosine."""
        return self._found.uses_learned

    @property
    def is_open(self) -> bool:
        """Whether anything may be served now."""
        return self.band != _NEVER and not self.is_suspended and self.aside is None

    def wants_label(self, pick: Pick, fullness: float) -> float:
        """Return the weight of this pair as a label; 0 if it is not to be one.

        The chance is a product: one of the cosine's band, which may change freely, as each band's
        traffic is counted, and one of the learned score, which the weight makes up for. What is
        left unspent (`Allowance.fullness`) widens the first one.
        """
        if pick.features[0] < EDGES[0]:
            return 0.0
        chance = 1.0 if pick.odds_band < 0 else float(self._found.odds_chances[pick.odds_band])
        of_band = float(self._found.chances[pick.cosine_band]) ** (1 - fullness)
        if self._draw() >= chance * of_band:
            return 0.0
        return 1 / chance

    def wants_own(self) -> bool:
        """Return whether a label on a miss is to have its control; chance decides."""
        return self._draw() < trust.share_of_controls(self.evidence.labels)

    def wants_control(self) -> Kind | None:
        """Return what kind of wrong pair to ask the judge about next, if it is its turn."""
        evidence = self.evidence
        return trust.next_kind(evidence.labels, evidence.controls, is_open=self.is_open)

    def observe(
        self,
        pick: Pick,
        outcome: Outcome,
        *,
        now: float,
        item: int,
        weight: float,
        served: bool = False,
        control: Outcome = Outcome.NONE,
        is_judged: bool = True,
    ) -> None:
        """Take a pair's outcome, and that of the control.

        Args:
            pick: the pair.
            outcome: what the judge made of it, or the comparison of the answers.
            now: Unix time, seconds.
            item: a random number of 64 bits.
            weight: what `wants_label` returned.
            served: whether it was a semantic hit.
            control: what the judge made of the request's own fresh answer.
            is_judged: False where the answers were seen to be the same without the judge.
        """
        for kind, said in ((Kind.PAIR, outcome), (Kind.OWN, control)):
            if said == Outcome.UNREADABLE:
                self._add_control(kind, said, now, item ^ (kind + 1))
                self._judge_trust()
        if outcome > Outcome.REJECTED:
            return
        if control == Outcome.UNREADABLE:
            control = Outcome.NONE
        is_rejected = outcome == Outcome.REJECTED
        label = np.zeros(1, LABEL)
        label[0] = (
            *(item, now, weight, pick.half, is_rejected, is_judged, control),
            pick.features.astype(np.float16),
        )
        self._take(Evidence(0, label))
        if served or (self.is_suspended and self._band(pick) >= self.band):
            self._watch_hit(is_rejected)
        if self.evidence.seen >= self._next_look:
            self.look(now)

    def controlled(self, kind: Kind, outcome: Outcome, *, now: float, item: int) -> None:
        """Take the outcome of a pair that is known to be wrong."""
        self._add_control(kind, outcome, now, item)
        if outcome == Outcome.UNREADABLE or kind == Kind.INJECTED:
            self._judge_trust()
        elif self.band != _NEVER:
            self._missed.label(outcome == Outcome.ACCEPTED, self._missed_rate)
            if self._missed.level >= _MISSED_REFUTED:
                self.alarms["judge"] += 1
                self._refute()

    def standing(self) -> Standing:
        """Return how it stands."""
        threshold = None
        if self.band != _NEVER:
            odds = odds_of_band(self.band)
            threshold = (
                1 / (1 + np.exp(-odds)) if self._found.uses_learned else lowest_score(self.band)
            )
        return Standing(
            "learned" if self._found.uses_learned else "cosine",
            threshold,
            self.is_suspended,
            self._found.certificate,
            trust.false_rejects(self.evidence.labels),
            self._sensitivity(),
            self.aside,
        )

    # Looks at the evidence.

    def look(self, now: float) -> None:
        """Find the loosest threshold that the evidence supports, and what to label next."""
        self.looks += 1
        self.evidence.expire(now)
        seen = self.evidence.seen
        self._next_look = max(seen + 1, min(seen * _MORE, seen + _MOST_WAIT))
        self._judge_trust()
        self._settle_traffic()
        rates = Rates(
            self.max_error,
            self._error,
            self._sensitivity(),
            trust.false_rejects(self.evidence.labels),
        )
        self._found = look_at(self.evidence, rates, self._with_pooled(self._found))
        band = self._found.certificate.band
        self.band = _NEVER if band is None else band
        if self.band == _NEVER:
            self._calm()
        self._hit_rate, self._missed_rate = rates.rejected_at_most, rates.missed_at_most

    def _with_pooled(self, found: Look) -> Look:
        """Return what was found, with a score learned elsewhere if there is none yet."""
        if found.learned is not None or (pooled := self._pooled()) is None:
            return found
        return replace(found, learned=pooled, fits=found.fits + 1)

    def _settle_traffic(self) -> None:
        self.evidence.add_traffic(self._passed)
        self._news.add_traffic(self._passed)
        self._passed = np.zeros(BANDS)

    def _sensitivity(self) -> Sensitivity:
        if self._assumed is not None:
            return self._assumed
        return trust.sensitivity_of(self.evidence.controls)

    def _judge_trust(self) -> None:
        if self._assumed is None:
            self.aside = trust.why_aside(self.evidence)

    def _watch_hit(self, is_rejected: bool) -> None:
        for alarm in self._hits:
            alarm.label(is_rejected, self._hit_rate)
        level = max(alarm.level for alarm in self._hits)
        if level >= _REFUTED:
            self._refute()
        elif level >= _SUSPEND and not self.is_suspended:
            self.is_suspended = True
            self.alarms["hits"] += 1
        elif level <= _RESUME:
            self.is_suspended = False

    def _refute(self) -> None:
        self.alarms["refuted"] += 1
        self.evidence.forget()
        self._drop_news()
        self._start_over()

    def _start_over(self) -> None:
        self._found = self._with_pooled(FIRST)
        self.band = _NEVER
        self._next_look = _FIRST_LOOK
        self._calm()
        self._hit_rate, self._missed_rate = self.max_error, 0.3
        self._passed = np.zeros(BANDS)

    def _calm(self) -> None:
        self.is_suspended = False
        self._hits = [Alarm(times) for times in _HITS_TIMES]
        self._missed = Alarm(_MISSED_TIMES)

    # What servers share.

    @property
    def was_shared(self) -> bool:
        """Whether the evidence of other processes, and of earlier ones, was seen."""
        return self._shared_epoch is not None

    @property
    def has_news(self) -> bool:
        """Whether there is evidence that was not shared yet."""
        has_offered = self.offer_number is not None
        return self.evidence.epoch != self._shared_epoch or has_offered or bool(self._news)

    def offer(self, shared: Evidence | None) -> Evidence:
        """Return the evidence that processes share, with this one's offer (`sharing.Shared`).

        Evidence that was refuted, here or elsewhere, is left out.
        """
        self._settle_traffic()
        if self.offer_number is None:
            self._offered, self._news = self._news, Evidence(self.evidence.epoch)
        if shared is not None and shared.epoch > self.evidence.epoch:
            return shared
        if shared is None or shared.epoch < self.evidence.epoch:
            shared = Evidence(self.evidence.epoch)
        shared.add(self._offered)
        shared.add_traffic(self._offered.traffic)
        return shared

    def adopt(self, shared: Evidence, now: float) -> None:
        """Go on from the evidence that is shared now, unless it was refuted since."""
        is_first = self._shared_epoch is None
        self._shared_epoch = shared.epoch
        self.offer_number = None
        if shared.epoch < self.evidence.epoch:
            return
        if shared.epoch > self.evidence.epoch:
            self.evidence = Evidence(shared.epoch)
            self._drop_news()
            self._start_over()
        self.evidence.add(shared)
        self.evidence.seen = max(self.evidence.seen, shared.seen)
        self.evidence.traffic = shared.traffic + self._news.traffic
        if is_first or self.evidence.seen >= self._next_look:
            self.look(now)

    def _drop_news(self) -> None:
        """Drop the new evidence, also that on its way to the store, as it was refuted."""
        self._news = Evidence(self.evidence.epoch)
        self._offered = Evidence(self.evidence.epoch)

    def _take(self, found: Evidence) -> None:
        self.evidence.add(found)
        self._news.add(found)

    def _add_control(self, kind: Kind, outcome: Outcome, now: float, item: int) -> None:
        control = np.zeros(1, CONTROL)
        control[0] = (item, now, kind, outcome)
        self._take(Evidence(0, controls=control))
