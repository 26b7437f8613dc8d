"""Lookups, hits and savings by namespace, bounded: some have series, the rest is `other`.

A client can name any number of namespaces. A namespace gets series of its own, for as long as the
process lives, while its tenant holds fewer of them than are still free: one tenant gets half of
them, a second one half of the rest, and so on, so that a tenant with many namespaces leaves room
for others. A counter is never given up for another one, which would look like a restart.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily

from cacheproxy.keys import owner_of, short_id

SHOWN = 100
"""Namespaces of a model that can have their own series."""

OTHER = "other"

TIERS = ("hot", "exact", "semantic")

_PREFIX = "cacheproxy_namespace_"


class NamespaceCount:
    """The counts of one namespace of a model; the event loop owns them.

    Attributes:
        hot, exact, semantic: hits by tier.
        not_hot: lookups that the hot tier, which is asked first, did not answer.
        saved_s, tokens, cost: what hits saved of the upstream's.
    """

    __slots__ = ("cost", "exact", "hot", "not_hot", "saved_s", "semantic", "tokens")

    def __init__(self) -> None:
        self.hot = self.exact = self.semantic = self.not_hot = 0
        self.saved_s = self.cost = 0.0
        self.tokens = 0


class ModelNamespaces:
    """The counts of a model's namespaces."""

    def __init__(self) -> None:
        self.counts: dict[str, NamespaceCount] = {}
        self.other: NamespaceCount | None = None
        self._held: dict[str, int] = defaultdict(int)

    def of(self, namespace_id: str) -> NamespaceCount:
        """Return the counts of a namespace, or those of all that have none of their own."""
        count = self.counts.get(namespace_id)
        return self._admit(namespace_id) if count is None else count

    def _admit(self, namespace_id: str) -> NamespaceCount:
        owner, free = owner_of(namespace_id), SHOWN - len(self.counts)
        if free and self._held.get(owner, 0) < free:
            self._held[owner] += 1
            count = self.counts[namespace_id] = NamespaceCount()
            return count
        if self.other is None:
            self.other = NamespaceCount()
        return self.other


class NamespaceCounts:
    """The counts of all models, as metrics."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._models: dict[str, ModelNamespaces] = {}
        registry.register(self)

    def of_model(self, model: str) -> ModelNamespaces:
        """Return the counts of a model, by its label in the metrics."""
        found = self._models.get(model)
        if found is None:
            found = self._models[model] = ModelNamespaces()
        return found

    def describe(self) -> Iterator[CounterMetricFamily]:
        """Yield the metrics without samples, as the registry asks for."""
        labels = ("model", "namespace")
        yield _family("lookups", "Lookups by namespace: texts, or chat requests", labels)
        yield _family("hits", "Hits among those", (*labels, "tier"))
        yield _family("saved_seconds", "Seconds of upstream time that hits saved", labels)
        yield _family("saved_tokens", "Tokens of completions that hits saved", labels)
        yield _family("saved_cost", "Cost that hits saved, from the configured prices", labels)

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Yield the metrics; what was never saved has no series."""
        lookups, hits, *saved = families = list(self.describe())
        values: tuple[Callable[[NamespaceCount], float], ...] = (
            lambda one: one.saved_s,
            lambda one: one.tokens,
            lambda one: one.cost,
        )
        for model, namespace, count in self._all():
            lookups.add_metric((model, namespace), count.hot + count.not_hot)
            for tier in TIERS:
                hits.add_metric((model, namespace, tier), getattr(count, tier))
            for family, value in zip(saved, values, strict=True):
                if value(count):
                    family.add_metric((model, namespace), value(count))
        yield from families

    def _all(self) -> Iterator[tuple[str, str, NamespaceCount]]:
        for model, namespaces in self._models.items():
            for namespace_id, count in namespaces.counts.items():
                yield model, short_id(namespace_id), count
            if namespaces.other is not None:
                yield model, OTHER, namespaces.other


def _family(name: str, text: str, labels: tuple[str, ...]) -> CounterMetricFamily:
    return CounterMetricFamily(f"{_PREFIX}{name}", text, labels=labels)
