"""The operator's own threshold: a guess, which carries no promise.

`semantic_certified` stays 0; labels of misses are counted, so that the guess can be assessed.
"""

from collections.abc import Callable

from cacheproxy.telemetry.metrics import Metrics
from cacheproxy.thresholds.controller import Verdict


class FixedThreshold:
    """A `Controller` with one threshold for all namespaces, or none: then it is not active.

    Attributes:
        threshold: the lowest score that is served, or None.
    """

    def __init__(
        self, threshold: float | None, *, min_similarity: float, model: str, metrics: Metrics
    ) -> None:
        self.threshold = threshold
        self._min_similarity = min_similarity
        self._labels = {
            right: metrics.semantic_labels.labels(model, "right" if right else "wrong")
            for right in (True, False)
        }

    def is_active(self, namespace_id: str, texts: int, *, is_idle: Callable[[], bool]) -> bool:
        """Return whether a threshold is set."""
        return self.threshold is not None

    def is_open(self, namespace_id: str) -> bool:
        """Return whether a threshold is set."""
        return self.threshold is not None

    def judge(self, namespace_id: str, score: float, min_similarity: float | None) -> Verdict:
        """Return whether the score reaches the set threshold, or the request's where stricter."""
        if self.threshold is None:
            return Verdict(False)
        return Verdict(score >= max(self.threshold, min_similarity or 0.0))

    def observe(self, namespace_id: str, score: float, similarity: float) -> None:
        """Count whether the neighbour would have been right to serve."""
        self._labels[similarity >= self._min_similarity].inc()

    def looked_up(self, namespace_id: str, seconds: float, texts: int, hits: int) -> None:
        """Do nothing: a threshold set by an operator is used whatever it costs."""

    def inferred(self, namespace_id: str, seconds: float, texts: int) -> None:
        """Do nothing, as above."""
