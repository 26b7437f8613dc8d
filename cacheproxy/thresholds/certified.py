"""The controller that keeps the promise: earned thresholds for each namespace, and their metrics.

Namespaces share nothing: evidence from one says nothing about another, and sharing it would leak
information between tenants.
"""

import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from cacheproxy.fairness.shelves import FairMap, TermsOf, equal
from cacheproxy.keys import owner_of, short_id
from cacheproxy.telemetry.metrics import (
    SEMANTIC_ASIDE,
    SEMANTIC_CERTIFIED,
    SEMANTIC_ERROR,
    SEMANTIC_ERROR_UPPER,
    SEMANTIC_PAIRS_NEEDED,
    SEMANTIC_THRESHOLD,
    Metrics,
)
from cacheproxy.thresholds.controller import Verdict
from cacheproxy.thresholds.earned import EarnedThresholds, Standing
from cacheproxy.thresholds.economy import Economy
from cacheproxy.thresholds.past import ThresholdChange, ThresholdPast
from cacheproxy.thresholds.promise import Promise

_log = logging.getLogger(__name__)

_NAMESPACES = 1_000
"""Namespaces kept at the same time, about 15 kB each; an evicted one later starts again. Tenants
divide them: one that makes namespaces without end pushes out its own."""

_CLOSED = 2.0
"""Exported as the threshold while closed: above every cosine."""


@dataclass(frozen=True, slots=True)
class Account:
    """The figures of one namespace of one model.

    Attributes:
        model: the model.
        namespace_id: the namespace.
        standings: the state of its thresholds, one for each min_similarity.
        alarms: how often the evidence was in doubt, by kind.
        is_aside: whether lookups are paused, because they cost more than they save.
        hits: semantic hits since the start of this process.
        spared_s: the approximate inference time that they saved, seconds.
        labels_per_s: at which rate labels came since the first one in this process, None if there
            are too few.
        changes: how the threshold for the default min_similarity moved.
    """

    model: str
    namespace_id: str
    standings: Sequence[Standing]
    alarms: Mapping[str, int] = field(default_factory=dict)
    is_aside: bool = False
    hits: int = 0
    spared_s: float = 0.0
    labels_per_s: float | None = None
    changes: Sequence[ThresholdChange] = ()


@dataclass(slots=True)
class _Namespace:
    earned: EarnedThresholds
    economy: Economy = field(default_factory=Economy)
    past: ThresholdPast = field(default_factory=ThresholdPast)
    labelled: int = 0
    labelled_from: float = 0.0

    def labels_per_s(self, now: float) -> float | None:
        passed_s = now - self.labelled_from
        return self.labelled / passed_s if self.labelled > 1 and passed_s > 0 else None


class CertifiedThresholds:
    """A `Controller` (see there for the methods) for one model."""

    def __init__(
        self,
        promise: Promise,
        *,
        min_similarity: float,
        saves_only: bool,
        model: str,
        metrics: Metrics,
        terms: TermsOf = equal,
        draw: Callable[[], float] = random.random,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Start closed everywhere.

        Args:
            promise: the promise to keep, in every namespace.
            min_similarity: the default for requests that set none; one of the promise's.
            saves_only: step aside if lookups cost more than they save.
            model: the model's name, for the metrics.
            metrics: counts labels, and shows the thresholds.
            terms: how many namespaces of a tenant are kept.
            draw: uniform in [0, 1).
            now: Unix time, seconds.
        """
        self._promise = promise
        self._now = now
        self._min_similarity = min_similarity
        self._saves_only = saves_only
        self._draw = draw
        self._namespaces = FairMap[str, _Namespace](
            _NAMESPACES, owner_of, forgotten=self._forget, terms=terms
        )
        self._labels = {
            right: metrics.semantic_labels.labels(model, "right" if right else "wrong")
            for right in (True, False)
        }
        self._spared = metrics.semantic_spared.labels(model)
        self._promised = metrics.semantic_promised_error.labels(model)
        self._promised.set(promise.max_error)
        self._model = model
        self._metrics = metrics
        self._shown: dict[str, int] = {}

    def promise_anew(self, promise: Promise, *, saves_only: bool) -> None:
        """Keep another promise with the same min_similarities, on the evidence that there is.

        A stricter one holds from the next lookup on; a looser one opens as slowly as ever.
        """
        self._saves_only = saves_only
        self._promised.set(promise.max_error)
        if promise == self._promise:
            return
        self._promise = promise
        for namespace in self._namespaces.values():
            namespace.earned.promise_anew(promise)

    def hide(self) -> None:
        """Show no thresholds while another controller decides."""
        for namespace_id in self._shown:
            self._metrics.semantic_namespaces.forget(self._model, namespace_id)
        self._shown.clear()

    def is_active(self, namespace_id: str, texts: int, *, is_idle: Callable[[], bool]) -> bool:
        """Return True unless the namespace has stepped aside; closed namespaces still learn."""
        economy = self._of(namespace_id).economy
        if economy.is_aside:
            economy.passed(texts, is_idle=is_idle())
        return not economy.is_aside

    def is_open(self, namespace_id: str) -> bool:
        """Return whether the namespace has a threshold that is not in doubt."""
        return self._of(namespace_id).earned.is_open

    def judge(self, namespace_id: str, score: float, min_similarity: float | None) -> Verdict:
        """Return the verdict that the namespace's evidence allows."""
        asked = self._min_similarity if min_similarity is None else min_similarity
        earned = self._of(namespace_id).earned
        verdict = earned.judge(score, asked)
        if earned.refits != self._shown.get(namespace_id):
            self._show(namespace_id, self._of(namespace_id))
        return verdict

    def observe(self, namespace_id: str, score: float, similarity: float) -> None:
        """Add to the namespace's evidence."""
        self._labels[similarity >= self._min_similarity].inc()
        namespace = self._of(namespace_id)
        earned = namespace.earned
        if not namespace.labelled:
            namespace.labelled_from = self._now()
        namespace.labelled += 1
        before = dict(earned.alarms)
        earned.observe(score, similarity)
        for kind, count in earned.alarms.items():
            if count > before[kind]:
                self._metrics.semantic_alarms.labels(self._model, kind).inc(count - before[kind])

    def looked_up(self, namespace_id: str, seconds: float, texts: int, hits: int) -> None:
        """Add to the namespace's costs, and step aside if they are too high."""
        namespace = self._of(namespace_id)
        economy = namespace.economy
        economy.looked_up(seconds, texts, hits)
        self._spared.inc(hits * economy.inference_s)
        if not self._saves_only or not economy.is_due():
            return
        share = namespace.earned.best_share(self._min_similarity)
        economy.settle(share)
        if economy.is_aside:
            _log.info(
                "the semantic tier steps aside in namespace %s for now: a lookup takes %.2f ms and"
                " would save at most %.1f %% of the texts %.2f ms of inference",
                *(short_id(namespace_id), 1000 * economy.lookup_s, 100 * share),
                1000 * economy.inference_s,
            )
        self._show(namespace_id, namespace)

    def inferred(self, namespace_id: str, seconds: float, texts: int) -> None:
        """Record the inference time that the namespace's hits save."""
        self._of(namespace_id).economy.inferred(seconds, texts)

    def accounts(self) -> Iterator[Account]:
        """Yield each namespace's account, a tenant's most recently used first."""
        for namespace_id, namespace in self._namespaces.items():
            yield Account(
                self._model,
                namespace_id,
                namespace.earned.standings(),
                alarms=dict(namespace.earned.alarms),
                is_aside=namespace.economy.is_aside,
                hits=namespace.economy.hits,
                spared_s=namespace.economy.spared_s,
                labels_per_s=namespace.labels_per_s(self._now()),
                changes=namespace.past.changes(),
            )

    @property
    def kind(self) -> str:
        """The kind of the evidence: the similarities that are promised."""
        return self._promise.kind

    def with_news(self) -> list[tuple[str, EarnedThresholds]]:
        """Return the namespaces with evidence that is not shared yet."""
        return [
            (namespace_id, namespace.earned)
            for namespace_id, namespace in self._namespaces.items()
            if namespace.earned.has_news
        ]

    def _show(self, namespace_id: str, namespace: _Namespace) -> None:
        earned = namespace.earned
        self._shown[namespace_id] = earned.refits
        standing = earned.standings()[self._promise.min_similarities.index(self._min_similarity)]
        is_open = standing.threshold is not None and not standing.is_suspended
        threshold = _CLOSED if standing.threshold is None else standing.threshold
        shown = None if not is_open else standing.threshold
        namespace.past.note(self._now(), shown, standing.upper)
        self._metrics.semantic_namespaces.set(
            self._model,
            namespace_id,
            {
                SEMANTIC_THRESHOLD: threshold if is_open else _CLOSED,
                SEMANTIC_CERTIFIED: is_open,
                SEMANTIC_ERROR: standing.error,
                SEMANTIC_ERROR_UPPER: standing.upper,
                SEMANTIC_PAIRS_NEEDED: standing.pairs_needed,
                SEMANTIC_ASIDE: namespace.economy.is_aside,
            },
        )

    def _of(self, namespace_id: str) -> _Namespace:
        namespace = self._namespaces.get(namespace_id)
        if namespace is None:
            namespace = _Namespace(EarnedThresholds(self._promise, random=self._draw))
            self._namespaces.put(namespace_id, namespace)
        return namespace

    def _forget(self, namespace_id: str) -> None:
        self._shown.pop(namespace_id, None)
        self._metrics.semantic_namespaces.forget(self._model, namespace_id)
