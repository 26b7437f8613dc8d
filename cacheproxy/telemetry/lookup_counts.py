"""Counts the lookups of one model in each tier, with the counters bound beforehand."""

from cacheproxy.telemetry.metrics import Metrics
from cacheproxy.telemetry.namespace_counts import TIERS


class LookupCounts:
    """Hits and misses of one model by tier, and requests that joined a call in flight."""

    def __init__(self, metrics: Metrics, model: str) -> None:
        """Bind the counters of a model, or of the label that stands for it."""
        self._hits = {tier: metrics.lookups.labels(model, tier, "hit") for tier in TIERS}
        self._misses = {tier: metrics.lookups.labels(model, tier, "miss") for tier in TIERS}
        self._collapsed = metrics.collapsed.labels(model)
        self._hot_hits = self._hits["hot"]
        self._namespaces = metrics.namespaces.of_model(model)
        self._known = self._namespaces.counts

    def hot_hit(self, namespace_id: str) -> None:
        """Count one hit in the hot tier."""
        self._hot_hits.value += 1
        namespace = self._known.get(namespace_id) or self._namespaces.of(namespace_id)
        namespace.hot += 1

    def count(self, namespace_id: str, tier: str, *, hits: int = 0, misses: int = 0) -> None:
        """Count lookups of a namespace in a tier."""
        namespace = self._namespaces.of(namespace_id)
        if tier == "hot":
            namespace.hot += hits
            namespace.not_hot += misses
        elif tier == "exact":
            namespace.exact += hits
        else:
            namespace.semantic += hits
        if hits:
            self._hits[tier].inc(hits)
        if misses:
            self._misses[tier].inc(misses)

    def joined(self, requests: int = 1) -> None:
        """Count requests that joined a call in flight."""
        self._collapsed.inc(requests)
