"""Counts the lookups of one model in each tier, with the counters bound beforehand."""

from cacheproxy.telemetry.metrics import Metrics

_TIERS = ("hot", "exact", "semantic")


class LookupCounts:
    """Hits and misses of one model by tier, and requests that joined a call in flight."""

    def __init__(self, metrics: Metrics, model: str) -> None:
        """Bind the counters of a model, or of the label that stands for it."""
        self._hits = {tier: metrics.lookups.labels(model, tier, "hit") for tier in _TIERS}
        self._misses = {tier: metrics.lookups.labels(model, tier, "miss") for tier in _TIERS}
        self._collapsed = metrics.collapsed.labels(model)
        self.hot_hit = self._hits["hot"].inc
        """Counts one hit in the hot tier."""

    def count(self, tier: str, *, hits: int = 0, misses: int = 0) -> None:
        """Count lookups in a tier."""
        if hits:
            self._hits[tier].inc(hits)
        if misses:
            self._misses[tier].inc(misses)

    def joined(self, requests: int = 1) -> None:
        """Count requests that joined a call in flight."""
        self._collapsed.inc(requests)


def lookup_totals(metrics: Metrics) -> dict[str, dict[str, int]]:
    """Return the number of lookups in each tier of this process, by result, of all models."""
    counts: dict[str, dict[str, int]] = {}
    for family in metrics.lookups.collect():
        for sample in family.samples:
            tier = counts.setdefault(sample.labels["tier"], {})
            result = sample.labels["result"]
            tier[result] = tier.get(result, 0) + int(sample.value)
    return counts
