"""The controller that keeps a promise: one namespace's earned thresholds each, and their metrics.

Namespaces share nothing: evidence of one says nothing of another, and would carry information from
tenant to tenant.
"""

import logging
import random
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from cacheproxy.metrics import Metrics
from cacheproxy.thresholds.controller import Verdict
from cacheproxy.thresholds.earned import EarnedThresholds, Promise, Standing
from cacheproxy.thresholds.economy import Economy

_log = logging.getLogger(__name__)

_NAMESPACES = 1_000
"""Kept at the same time, some 15 kB each; what was used longest ago starts anew later."""

_SHOWN = 50
"""Namespaces whose thresholds are exported as metrics: those that came first."""

_SHOWN_ID = 12

_CLOSED = 2.0
"""Exported as the threshold while closed: above every cosine."""


@dataclass(slots=True)
class _Namespace:
    earned: EarnedThresholds
    economy: Economy = field(default_factory=Economy)


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
        draw: Callable[[], float] = random.random,
    ) -> None:
        """Start closed everywhere.

        Args:
            promise: what is to be kept, in every namespace.
            min_similarity: of requests that ask for none; one of the promise's.
            saves_only: step aside where lookups cost more than they spare.
            model: the model's name, for the metrics.
            metrics: counts labels, and shows the thresholds of the first namespaces.
            draw: uniform in [0, 1).
        """
        self._promise = promise
        self._min_similarity = min_similarity
        self._saves_only = saves_only
        self._draw = draw
        self._namespaces: OrderedDict[str, _Namespace] = OrderedDict()
        self._labels = {
            right: metrics.semantic_labels.labels(model, "right" if right else "wrong")
            for right in (True, False)
        }
        self._model = model
        self._metrics = metrics
        self._shown: dict[str, int] = {}

    def is_active(self, namespace_id: str, texts: int) -> bool:
        """Return True, unless the namespace's lookups are not worth it: closed ones learn."""
        economy = self._of(namespace_id).economy
        if economy.is_aside:
            economy.passed(texts)
        return not economy.is_aside

    def judge(self, namespace_id: str, score: float, min_similarity: float | None) -> Verdict:
        """Return what the namespace's evidence allows."""
        asked = self._min_similarity if min_similarity is None else min_similarity
        earned = self._of(namespace_id).earned
        verdict = earned.judge(score, asked)
        if earned.refits != self._shown.get(namespace_id):
            self._show(namespace_id, self._of(namespace_id))
        return verdict

    def observe(self, namespace_id: str, score: float, similarity: float) -> None:
        """Add to the namespace's evidence."""
        self._labels[similarity >= self._min_similarity].inc()
        earned = self._of(namespace_id).earned
        before = dict(earned.alarms)
        earned.observe(score, similarity)
        for kind, count in earned.alarms.items():
            if count > before[kind]:
                self._metrics.semantic_alarms.labels(self._model, kind).inc(count - before[kind])

    def looked_up(self, namespace_id: str, seconds: float, texts: int) -> None:
        """Add to the namespace's costs, and step aside where they are too high."""
        namespace = self._of(namespace_id)
        economy = namespace.economy
        economy.looked_up(seconds, texts)
        if not self._saves_only or not economy.is_due():
            return
        share = namespace.earned.best_share(self._min_similarity)
        economy.settle(share)
        if economy.is_aside:
            _log.info(
                "the semantic tier steps aside in namespace %s for now: a lookup takes %.2f ms, and"
                " would at best spare %.1f %% of the texts %.2f ms of inference",
                *(namespace_id[:_SHOWN_ID], 1000 * economy.lookup_s, 100 * share),
                1000 * economy.inference_s,
            )
        self._show(namespace_id, namespace)

    def inferred(self, namespace_id: str, seconds: float, texts: int) -> None:
        """Note what the namespace's hits spare."""
        self._of(namespace_id).economy.inferred(seconds, texts)

    def standings(self) -> Iterator[tuple[str, Sequence[Standing]]]:
        """Yield each namespace's id and thresholds, the one used last first."""
        for namespace_id in reversed(self._namespaces):
            yield namespace_id, self._namespaces[namespace_id].earned.standings()

    def with_news(self) -> list[tuple[str, EarnedThresholds]]:
        """Return the namespaces with evidence that was not shared yet."""
        return [
            (namespace_id, namespace.earned)
            for namespace_id, namespace in self._namespaces.items()
            if namespace.earned.has_news
        ]

    def _show(self, namespace_id: str, namespace: _Namespace) -> None:
        earned = namespace.earned
        if namespace_id not in self._shown and len(self._shown) >= _SHOWN:
            return
        self._shown[namespace_id] = earned.refits
        metrics, labels = self._metrics, (self._model, namespace_id[:_SHOWN_ID])
        standing = earned.standings()[self._promise.min_similarities.index(self._min_similarity)]
        is_open = standing.threshold is not None and not standing.is_suspended
        threshold = _CLOSED if standing.threshold is None else standing.threshold
        metrics.semantic_threshold.labels(*labels).set(threshold if is_open else _CLOSED)
        metrics.semantic_certified.labels(*labels).set(is_open)
        metrics.semantic_error.labels(*labels).set(standing.error)
        metrics.semantic_error_upper.labels(*labels).set(standing.upper)
        metrics.semantic_pairs_needed.labels(*labels).set(standing.pairs_needed)
        metrics.semantic_aside.labels(*labels).set(namespace.economy.is_aside)

    def _of(self, namespace_id: str) -> _Namespace:
        namespace = self._namespaces.get(namespace_id)
        if namespace is None:
            if len(self._namespaces) >= _NAMESPACES:
                self._namespaces.popitem(last=False)
            namespace = _Namespace(EarnedThresholds(self._promise, random=self._draw))
            self._namespaces[namespace_id] = namespace
        self._namespaces.move_to_end(namespace_id)
        return namespace
