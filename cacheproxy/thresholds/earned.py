"""The threshold that keeps a promise: P(wrong | semantic hit) <= max_error, or no semantic hits.

One namespace under one model, as a pure state machine without a clock: its input are texts and
labels, its output are verdicts. It starts closed. Every miss with a neighbour is a free label, and
a share of the hits is checked in the background; the evidence opens the tier, tightens the
threshold at once and loosens it slowly. If labels suggest that the traffic has changed, the tier is
suspended: nothing is served, so that every text with a neighbour becomes a label, until these
confirm or refute the evidence. Such signs are a wrong hit, and a rise of errors among the misses
just below the threshold (the canary), all of which are labelled. Refuted evidence is discarded.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from cacheproxy.thresholds.alarm import Alarm
from cacheproxy.thresholds.bands import BANDS, band_of, lowest_score
from cacheproxy.thresholds.bounds import least_labels
from cacheproxy.thresholds.certificate import Certificate, certify
from cacheproxy.thresholds.controller import Verdict
from cacheproxy.thresholds.ledger import Ledger
from cacheproxy.thresholds.promise import Promise

_CANARY_BANDS = 6

_HITS_TIMES, _CANARY_TIMES = (2.0, 10.0), 3.0
"""Error rates that the alarms over hits detect: twice and ten times the promised rate."""

_SUSPEND, _RESUME, _REFUTED = 10.0, 2.0, 5_000.0
"""Levels of the alarms over hits: suspension at the first, resumption at the second, and refutation
of the evidence at the third."""

_CANARY_SUSPEND = 100.0

_LOOSEN_REFITS = 2
_SURE = 3.0
"""Multiple of the labels needed to open: with fewer, only half of what is certified is served."""

_YOUNG = 6.0
"""A band is checked often until it has this multiple of `traffic share / max_error` labels."""

_NEVER = BANDS
_UNKNOWN = Certificate(None, 0.0, 1.0, 0.0, math.inf)


@dataclass(slots=True)
class _Threshold:
    """The threshold of one min_similarity and its alarms."""

    band: int = _NEVER
    looser_refits: int = 0
    certificate: Certificate = _UNKNOWN
    rates: list[float] = field(default_factory=lambda: [1.0] * BANDS)
    checks: list[float] = field(default_factory=lambda: [1.0] * BANDS)
    hits: tuple[Alarm, ...] = field(
        default_factory=lambda: tuple(Alarm(times) for times in _HITS_TIMES)
    )
    canary: Alarm = field(default_factory=lambda: Alarm(_CANARY_TIMES))
    is_suspended: bool = False


@dataclass(frozen=True, slots=True)
class Standing:
    """The state of one threshold.

    Attributes:
        min_similarity: the similarity from which a neighbour counts as right.
        threshold: the lowest score that is served, or None while closed.
        is_suspended: whether nothing is served for now, because the evidence is in doubt.
        error: the estimated error rate above it (or above the best candidate).
        upper: its upper limit at the promised confidence.
        labels: the evidence above it, in labels.
        pairs_needed: about how many more labels would open it; 0 while open, infinite if none.
    """

    min_similarity: float
    threshold: float | None
    is_suspended: bool
    error: float
    upper: float
    labels: float
    pairs_needed: float


class EarnedThresholds:
    """The thresholds of one namespace under one model, one for each min_similarity.

    Attributes:
        offer_number: of the offer that is not known to be stored (`sharing.Shared`).
    """

    def __init__(
        self, promise: Promise, *, random: Callable[[], float], ledger: Ledger | None = None
    ) -> None:
        """Start closed, or with the evidence of a ledger.

        Args:
            promise: the promise to keep.
            random: uniform in [0, 1); draws which hits are checked.
            ledger: evidence from before, of the promise's min_similarities.
        """
        self.promise = promise
        self.alarms = {"hits": 0, "canary": 0, "refuted": 0}
        self.refits = 0
        self._shared_epoch: int | None = None
        self._random = random
        self._ledger = ledger or Ledger(promise.min_similarities)
        self._thresholds = [_Threshold() for _ in promise.min_similarities]
        self._since_refit = self._served_labels = 0
        self._refit_at = promise.refit_every
        self._news = Ledger(promise.min_similarities)
        self._offered = Ledger(promise.min_similarities)
        self._age_of_news = self._age_offered = 1.0
        self.offer_number: int | None = None
        self._refit(at_once=True)

    def judge(self, score: float, min_similarity: float) -> Verdict:
        """Return whether a neighbour of this score may be served to a request with this similarity.

        For a similarity between two that are kept, the stricter one's threshold applies.
        """
        band = band_of(score)
        self._ledger.traffic[band] += 1
        self._news.traffic[band] += 1
        self._since_refit += 1
        if self._since_refit >= self._refit_at:
            self._age()
            self._refit()
        for threshold, kept in zip(self._thresholds, self.promise.min_similarities, strict=True):
            if min_similarity <= kept:
                if band < threshold.band or threshold.is_suspended:
                    return Verdict(False)
                return Verdict(True, self._random() < threshold.checks[band])
        return Verdict(False)

    def promise_anew(self, promise: Promise) -> None:
        """Keep another promise, with the same min_similarities, from the next lookup on."""
        self.promise = promise
        self._refit_at = 0

    def observe(self, score: float, similarity: float) -> None:
        """Add a label: a neighbour of this score and its cosine to the true vector.

        It is called for every miss with a neighbour, and for hits for which `judge` asked a check.
        """
        band = band_of(score)
        self._ledger.label(band, similarity)
        self._news.label(band, similarity)
        for threshold, least in zip(self._thresholds, self.promise.min_similarities, strict=True):
            self._watch(threshold, band, similarity < least)

    @property
    def is_open(self) -> bool:
        """Whether any of the thresholds allows hits."""
        return any(
            threshold.band != _NEVER and not threshold.is_suspended
            for threshold in self._thresholds
        )

    def best_share(self, min_similarity: float) -> float:
        """Return the largest share of traffic above a threshold that seems to keep the promise.

        It uses estimates only: what the evidence may allow later, not what it allows now.
        """
        errors = self._ledger.errors[self.promise.min_similarities.index(min_similarity)]
        total = sum(self._ledger.traffic)
        traffic = wrong = best = 0.0
        for band in range(BANDS - 1, -1, -1):
            traffic += self._ledger.traffic[band]
            if self._ledger.labels[band]:
                rate = errors[band] / self._ledger.labels[band]
                wrong += self._ledger.traffic[band] * rate
            if wrong <= self.promise.max_error * traffic:
                best = traffic
        return best / total if total else 0.0

    def pack(self) -> bytes:
        """Return the evidence as bytes, as `Ledger.unpack` reads it."""
        return self._ledger.pack()

    @property
    def was_shared(self) -> bool:
        """Whether the evidence of other and earlier processes has been read."""
        return self._shared_epoch is not None

    @property
    def has_news(self) -> bool:
        """Whether there is evidence that is not shared yet."""
        return (
            self._ledger.epoch != self._shared_epoch
            or any(self._news.traffic)
            or self.offer_number is not None
        )

    def offer(self, shared: Ledger | None) -> Ledger:
        """Return the shared evidence with this process's offer added (`sharing.Shared`).

        Evidence that was refuted, here or elsewhere, is excluded.
        """
        if self.offer_number is None:
            self._offered, self._news = self._news, Ledger(self.promise.min_similarities)
            self._age_offered, self._age_of_news = self._age_of_news, 1.0
        if shared is not None and shared.epoch > self._ledger.epoch:
            return shared
        if shared is None or shared.epoch < self._ledger.epoch:
            shared = Ledger(self.promise.min_similarities, self._ledger.epoch)
        shared.age(self._age_offered)
        shared.add(self._offered)
        return shared

    def adopt(self, shared: Ledger) -> None:
        """Continue with the evidence that is shared now, unless it has been refuted since."""
        is_first = self._shared_epoch is None
        self._shared_epoch = shared.epoch
        self.offer_number = None
        if shared.epoch < self._ledger.epoch:
            return
        if shared.epoch > self._ledger.epoch:
            self._start_over()
        self._ledger = shared
        self._ledger.add(self._news)
        self._refit(at_once=is_first)

    def unpack(self, packed: bytes) -> Ledger | None:
        """Return the evidence that another process packed; None if it is none of this kind."""
        return Ledger.unpack(packed, self.promise.min_similarities)

    def _start_over(self) -> None:
        """Close all thresholds and drop the new evidence, also that being written to the store."""
        self._thresholds = [_Threshold() for _ in self._thresholds]
        self._news = Ledger(self.promise.min_similarities)
        self._offered = Ledger(self.promise.min_similarities)
        self._age_of_news = self._age_offered = 1.0

    def standings(self) -> list[Standing]:
        """Return the state of each threshold."""
        return [
            Standing(
                min_similarity,
                None if threshold.band == _NEVER else lowest_score(threshold.band),
                threshold.is_suspended,
                threshold.certificate.error,
                threshold.certificate.upper,
                threshold.certificate.labels,
                threshold.certificate.pairs_needed,
            )
            for min_similarity, threshold in zip(
                self.promise.min_similarities, self._thresholds, strict=True
            )
        ]

    def _watch(self, threshold: _Threshold, band: int, is_wrong: bool) -> None:
        if threshold.band == _NEVER:
            return
        if band >= threshold.band:
            self._served_labels += 1
            for alarm in threshold.hits:
                alarm.label(is_wrong, threshold.rates[band])
            level = max(alarm.level for alarm in threshold.hits)
            if level >= _REFUTED:
                self._refute()
            elif level >= _SUSPEND:
                self._suspend(threshold, "hits")
            elif level <= _RESUME:
                threshold.is_suspended = False
        elif band >= threshold.band - _CANARY_BANDS:
            threshold.canary.label(is_wrong, threshold.rates[band])
            if threshold.canary.level >= _CANARY_SUSPEND:
                threshold.canary.level = 1.0
                threshold.hits[-1].level = max(threshold.hits[-1].level, _SUSPEND)
                self._suspend(threshold, "canary")

    def _age(self) -> None:
        promise = self.promise
        half_lives = self._since_refit / promise.half_life
        half_lives += self._served_labels / (promise.fresh_labels / promise.max_error)
        self._ledger.age(2**-half_lives)
        self._age_of_news *= 2**-half_lives
        self._since_refit = self._served_labels = 0

    def _suspend(self, threshold: _Threshold, alarm: str) -> None:
        if not threshold.is_suspended:
            threshold.is_suspended = True
            self.alarms[alarm] += 1

    def _refute(self) -> None:
        """Discard all evidence, because the traffic that it describes has changed."""
        self.alarms["refuted"] += 1
        self._ledger.forget()
        self._start_over()

    def _refit(self, *, at_once: bool = False) -> None:
        self.refits += 1
        self._refit_at = self.promise.refit_every
        for threshold, errors in zip(self._thresholds, self._ledger.errors, strict=True):
            threshold.certificate = certificate = certify(
                self._ledger.traffic,
                self._ledger.labels,
                errors,
                max_error=self.promise.max_error,
                confidence=self.promise.confidence,
            )
            band = self._first_served(certificate)
            if band >= threshold.band or at_once:
                threshold.band, threshold.looser_refits = band, 0
            else:
                threshold.looser_refits += 1
                if threshold.looser_refits >= _LOOSEN_REFITS:
                    threshold.band, threshold.looser_refits = band, 0
            self._learn_rates(threshold, errors)
            self._plan_checks(threshold)

    def _first_served(self, certificate: Certificate) -> int:
        """Return the lowest band to serve: if few labels certify it, only the better half.

        Among the first hits, chance matters more than the promise allows for, because hits and
        errors are few. The excluded neighbours yield free labels meanwhile.
        """
        if certificate.band is None:
            return _NEVER
        band, traffic = certificate.band, self._ledger.traffic
        promise = self.promise
        if certificate.labels < _SURE * least_labels(promise.max_error, promise.confidence):
            half = sum(traffic[band:]) / 2
            while band < BANDS - 1 and sum(traffic[band + 1 :]) >= half:
                band += 1
        return band

    def _learn_rates(self, threshold: _Threshold, errors: list[float]) -> None:
        """Set the expected error rate of each band, above which the alarms react.

        Above the threshold it is the band's estimate, scaled so that all bands together would reach
        the promised rate. Below it, it is the highest rate that is compatible with the labels.
        """
        promised, labels = self.promise.max_error, self._ledger.labels
        mean = max(threshold.certificate.error, 0.1 * promised)
        for band in range(BANDS):
            if band >= threshold.band:
                rate = (errors[band] + 5 * mean) / (labels[band] + 5) * promised / mean
            elif labels[band] > 0:
                rate = max(promised, _wilson_limit(errors[band], labels[band]))
            else:
                rate = 1.0
            threshold.rates[band] = min(0.95, max(0.1 * promised, rate))

    def _plan_checks(self, threshold: _Threshold) -> None:
        promise = self.promise
        served = sum(self._ledger.traffic[threshold.band :]) or 1.0
        for band in range(threshold.band, BANDS):
            wanted = _YOUNG * self._ledger.traffic[band] / served / promise.max_error
            missing = 1 - self._ledger.labels[band] / wanted if wanted else 1.0
            threshold.checks[band] = min(promise.most_checks, max(promise.least_checks, missing))


def _wilson_limit(errors: float, labels: float) -> float:
    """Return Wilson's upper limit of a rate at 95 %, which is accurate enough for an alarm."""
    z = 1.645
    p = min(1.0, errors / labels)
    spread = z * math.sqrt(p * (1 - p) / labels + (z / (2 * labels)) ** 2)
    return (p + z * z / (2 * labels) + spread) / (1 + z * z / labels)
