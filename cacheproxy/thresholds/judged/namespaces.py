"""The judged thresholds of one model: one for each namespace, their metrics, and what is shared.

Namespaces share no evidence: that of one says nothing about another, and would carry information
from tenant to tenant. What they may share is the score by which a new one begins (`pooled`).
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from cacheproxy.fairness.shelves import FairMap, TermsOf, equal
from cacheproxy.keys import owner_of
from cacheproxy.telemetry.metrics import (
    SEMANTIC_ASIDE,
    SEMANTIC_CERTIFIED,
    SEMANTIC_ERROR,
    SEMANTIC_ERROR_UPPER,
    SEMANTIC_PAIRS_NEEDED,
    SEMANTIC_THRESHOLD,
    Metrics,
)
from cacheproxy.thresholds.judged.allowance import Allowance
from cacheproxy.thresholds.judged.evidence import Evidence, Items, Kind, Outcome
from cacheproxy.thresholds.judged.learned import LearnedScore
from cacheproxy.thresholds.judged.limits import Sensitivity
from cacheproxy.thresholds.judged.pooled import PooledScore
from cacheproxy.thresholds.judged.thresholds import JudgedThresholds, Pick, Standing
from cacheproxy.thresholds.past import ThresholdChange, ThresholdPast

_NAMESPACES = 200
"""Namespaces of a model with evidence in memory, up to 0.3 MB each; the one that was used longest
ago is dropped, and read from the store again. Tenants divide them (`fairness.shelves`)."""

_CLOSED = 2.0
"""Exported as the threshold while closed: above every score."""

_LATEST = 200
"""Labels by whose times the rate of labels is told."""


@dataclass(frozen=True, slots=True)
class JudgedAccount:
    """What may be told of one namespace.

    Attributes:
        namespace_id: whose account it is.
        standing: how its threshold stands.
        labels: verdicts on pairs of its traffic.
        labels_per_s: the rate at which they come, or None while that is not known.
        alarms: how often the evidence was in doubt, by kind.
        hits: semantic hits since the start of this process.
        saved_s: the upstream's time that they saved, seconds.
        changes: how the threshold moved, as this process saw it.
    """

    namespace_id: str
    standing: Standing
    labels: int
    labels_per_s: float | None
    alarms: Mapping[str, int]
    hits: int
    saved_s: float
    changes: Sequence[ThresholdChange] = ()


@dataclass(frozen=True, slots=True)
class ModelAccount:
    """What may be told of one model.

    Attributes:
        judge: the model that judges, or None: answers are compared.
        allowance: what judging has cost.
        namespaces: where they stand.
    """

    judge: str | None
    allowance: Allowance
    namespaces: Sequence[JudgedAccount]


@dataclass
class JudgedNamespace:
    """One namespace: its thresholds, as processes share them (`sharing.Shared`), and its hits."""

    thresholds: JudgedThresholds
    now: Callable[[], float]
    hits: int = 0
    saved_s: float = 0.0
    usual_s: float = 0.0
    shown: tuple[int, int, bool, bool] | None = None
    shown_alarms: dict[str, int] = field(default_factory=dict)
    past: ThresholdPast = field(default_factory=ThresholdPast)

    @property
    def was_shared(self) -> bool:
        """See `sharing.Shared`."""
        return self.thresholds.was_shared

    @property
    def has_news(self) -> bool:
        """Whether there is anything to share."""
        return self.thresholds.has_news

    @property
    def offer_number(self) -> int | None:
        """See `sharing.Shared`."""
        return self.thresholds.offer_number

    @offer_number.setter
    def offer_number(self, number: int | None) -> None:
        self.thresholds.offer_number = number

    def unpack(self, packed: bytes) -> Evidence | None:
        """See `sharing.Shared`."""
        return Evidence.unpack(packed)

    def offer(self, shared: Evidence | None) -> Evidence:
        """See `sharing.Shared`."""
        return self.thresholds.offer(shared)

    def adopt(self, shared: Evidence) -> None:
        """See `sharing.Shared`."""
        self.thresholds.adopt(shared, self.now())

    def labels_per_s(self) -> float | None:
        """Return the rate of the latest labels, None while there are too few."""
        times = self.thresholds.evidence.labels["at"][-_LATEST:]
        if len(times) < 2 or times[-1] <= times[0]:
            return None
        return float((len(times) - 1) / (times[-1] - times[0]))


class JudgedNamespaces:
    """The namespaces of one model.

    Attributes:
        kind: of evidence (`sharing.EvidenceSource`).
        allowance: what the proxy may spend on requests of its own for this model.
    """

    kind = "judged-1"

    def __init__(
        self,
        allowance: Allowance,
        *,
        max_error: float,
        confidence: float,
        assumed: Sensitivity | None,
        is_pooled: bool,
        model: str,
        metrics: Metrics,
        now: Callable[[], float],
        terms: TermsOf = equal,
        draw: Callable[[], float] = random.random,
    ) -> None:
        """Start closed everywhere.

        Args:
            allowance: see above.
            max_error, confidence: what is promised.
            assumed: the sensitivity of comparing answers, where no judge is asked.
            is_pooled: whether namespaces begin with a score learned from all of them.
            model: the model's label in the metrics.
            metrics: counts labels and shows the thresholds.
            now: Unix time, seconds.
            terms: how many namespaces of a tenant are kept.
            draw: uniform in [0, 1).
        """
        self.allowance = allowance
        self._max_error, self._confidence = max_error, confidence
        self._assumed, self._draw = assumed, draw
        self._now = now
        self._model = model
        self._metrics = metrics
        self._namespaces = FairMap[str, JudgedNamespace](
            _NAMESPACES,
            owner_of,
            forgotten=lambda oldest: metrics.semantic_namespaces.forget(model, oldest),
            terms=terms,
        )
        pooled = PooledScore(self._labels_of_all)
        self._pooled: Callable[[], LearnedScore | None] = pooled if is_pooled else lambda: None
        self._labels = {
            outcome: metrics.semantic_labels.labels(model, name)
            for outcome, name in (
                (Outcome.ACCEPTED, "right"),
                (Outcome.REJECTED, "wrong"),
                (Outcome.UNREADABLE, "unreadable"),
            )
        }
        self._controls = {
            (kind, outcome): metrics.judge_controls.labels(model, kind.name.lower(), name)
            for kind in (Kind.HARD, Kind.TRAFFIC, Kind.INJECTED, Kind.OWN)
            for outcome, name in (
                (Outcome.ACCEPTED, "accepted"),
                (Outcome.REJECTED, "rejected"),
                (Outcome.UNREADABLE, "unreadable"),
            )
        }
        self._promised = metrics.semantic_promised_error.labels(model)
        self._promised.set(max_error)

    def promise_anew(self, max_error: float, confidence: float) -> None:
        """Keep another promise in all namespaces, on the evidence that there is."""
        self._promised.set(max_error)
        if (max_error, confidence) == (self._max_error, self._confidence):
            return
        self._max_error, self._confidence = max_error, confidence
        for namespace_id, namespace in list(self._namespaces.items()):
            namespace.thresholds.promise_anew(max_error, confidence)
            self.show(namespace_id)

    def hide(self) -> None:
        """Show no thresholds while an operator's own is used."""
        for namespace_id, namespace in self._namespaces.items():
            namespace.shown = None
            self._metrics.semantic_namespaces.forget(self._model, namespace_id)

    def of(self, namespace_id: str) -> JudgedThresholds:
        """Return the thresholds of a namespace."""
        return self._of(namespace_id).thresholds

    def served(self, namespace_id: str, saved_s: float) -> None:
        """Count a semantic hit, which saved so much of the upstream's time."""
        namespace = self._of(namespace_id)
        namespace.hits += 1
        namespace.saved_s += saved_s

    def observe(
        self,
        namespace_id: str,
        pick: Pick,
        outcome: Outcome,
        *,
        item: int,
        weight: float,
        served: bool = False,
        control: Outcome = Outcome.NONE,
        is_judged: bool = True,
    ) -> None:
        """Take a label of a namespace, and its control (`JudgedThresholds.observe`)."""
        self._labels[outcome].inc()
        if control != Outcome.NONE:
            self._controls[Kind.OWN, control].inc()
        self.of(namespace_id).observe(
            *(pick, outcome),
            now=self._now(),
            item=item,
            weight=weight,
            served=served,
            control=control,
            is_judged=is_judged,
        )
        self.show(namespace_id)

    def controlled(self, namespace_id: str, kind: Kind, outcome: Outcome, *, item: int) -> None:
        """Take the outcome of a pair that is wrong by construction."""
        self._controls[kind, outcome].inc()
        self.of(namespace_id).controlled(kind, outcome, now=self._now(), item=item)
        self.show(namespace_id)

    def accounts(self) -> Iterator[JudgedAccount]:
        """Yield each namespace's account, a tenant's one used last first."""
        for namespace_id, namespace in self._namespaces.items():
            thresholds = namespace.thresholds
            yield JudgedAccount(
                namespace_id,
                thresholds.standing(),
                labels=len(thresholds.evidence.labels),
                labels_per_s=namespace.labels_per_s(),
                alarms=dict(thresholds.alarms),
                hits=namespace.hits,
                saved_s=namespace.saved_s,
                changes=namespace.past.changes(),
            )

    def with_news(self) -> list[tuple[str, JudgedNamespace]]:
        """Return the namespaces with evidence that was not shared yet."""
        return [
            (namespace_id, namespace)
            for namespace_id, namespace in self._namespaces.items()
            if namespace.has_news
        ]

    def show(self, namespace_id: str) -> None:
        """Show in the metrics how a namespace stands, if that has changed."""
        namespace = self._of(namespace_id)
        thresholds = namespace.thresholds
        for kind, count in thresholds.alarms.items():
            if more := count - namespace.shown_alarms.get(kind, 0):
                self._metrics.semantic_alarms.labels(self._model, kind).inc(more)
        namespace.shown_alarms = dict(thresholds.alarms)
        # It may step aside, be suspended, and resume, between two looks.
        alarms, is_aside = sum(thresholds.alarms.values()), thresholds.aside is not None
        current = (thresholds.looks, alarms, thresholds.is_open, is_aside)
        if namespace.shown == current:
            return
        namespace.shown = current
        standing = thresholds.standing()
        threshold = standing.threshold if thresholds.is_open else None
        namespace.past.note(self._now(), threshold, standing.certificate.upper)
        self._metrics.semantic_namespaces.set(
            self._model,
            namespace_id,
            {
                SEMANTIC_THRESHOLD: _CLOSED if threshold is None else float(threshold),
                SEMANTIC_CERTIFIED: thresholds.is_open,
                SEMANTIC_ERROR: standing.certificate.error,
                SEMANTIC_ERROR_UPPER: standing.certificate.upper,
                SEMANTIC_PAIRS_NEEDED: standing.certificate.pairs_needed,
                SEMANTIC_ASIDE: standing.aside is not None,
            },
        )

    def _labels_of_all(self) -> Iterator[Items]:
        for namespace in self._namespaces.values():
            yield namespace.thresholds.evidence.labels

    def _of(self, namespace_id: str) -> JudgedNamespace:
        namespace = self._namespaces.get(namespace_id)
        if namespace is None:
            thresholds = JudgedThresholds(
                max_error=self._max_error,
                confidence=self._confidence,
                random=self._draw,
                assumed=self._assumed,
                pooled=self._pooled,
            )
            namespace = JudgedNamespace(thresholds, self._now)
            self._namespaces.put(namespace_id, namespace)
        return namespace
