"""The plainest honest controller: closed, unless the operator has set a fixed threshold.

A fixed threshold is the operator's own guess and carries no promise, so `semantic_certified` stays
0; what its misses teach is counted, so that the guess can be judged.
"""

from cacheproxy.metrics import Metrics

_CLOSED = 2.0
"""Exported as the threshold while closed: above every cosine."""


class FixedThreshold:
    """A `Controller` with one threshold for all namespaces, or none."""

    def __init__(
        self, threshold: float | None, *, min_similarity: float, model: str, metrics: Metrics
    ) -> None:
        self._threshold = threshold
        self._min_similarity = min_similarity
        self._labels = {
            right: metrics.semantic_labels.labels(model, "right" if right else "wrong")
            for right in (True, False)
        }
        metrics.semantic_threshold.labels(model).set(_CLOSED if threshold is None else threshold)
        metrics.semantic_certified.labels(model).set(0)

    @property
    def is_active(self) -> bool:
        """Whether a threshold is set."""
        return self._threshold is not None

    def threshold(self, namespace_id: str, min_similarity: float | None) -> float | None:
        """Return the set threshold, or the request's `min_similarity` where that is stricter."""
        if self._threshold is None or min_similarity is None:
            return self._threshold
        return max(self._threshold, min_similarity)

    def observe(self, namespace_id: str, score: float, similarity: float) -> None:
        """Count whether the neighbour would have been right to serve."""
        self._labels[similarity >= self._min_similarity].inc()
