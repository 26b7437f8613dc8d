"""Gauges labelled by namespace, with a bound: some namespaces by name, the rest as `other`.

A client can name any number of namespaces, and neither a scrape nor Prometheus may grow with them.
Of each tenant the first ones seen are shown, and tenants take turns until the bound is reached, so
that one with many namespaces hides no other. `other` shows the worst value of the rest, so that an
alert misses none. The same rule merges the values of several processes.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from itertools import chain, zip_longest
from typing import Literal, NamedTuple

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import GaugeMetricFamily

from cacheproxy.keys import owner_of, short_id

SHOWN = 50
"""Namespaces of a model that have their own series."""

OTHER = "other"

_WORST = {"max": max, "min": min}


class NamespaceGauge(NamedTuple):
    """A gauge: its name, its help text, and which of two values is the worse one."""

    name: str
    text: str
    worst: Literal["max", "min"]


class NamespaceGauges:
    """The gauges of every namespace, labelled with model and namespace."""

    def __init__(self, gauges: Sequence[NamespaceGauge], registry: CollectorRegistry) -> None:
        self._gauges = gauges
        self._values: dict[str, dict[str, dict[str, Mapping[str, float]]]] = {}
        registry.register(self)

    def set(self, model: str, namespace_id: str, values: Mapping[str, float]) -> None:
        """Set the values of a namespace, keyed by gauge name."""
        of_model = self._values.setdefault(model, {})
        of_model.setdefault(owner_of(namespace_id), {})[short_id(namespace_id)] = values

    def forget(self, model: str, namespace_id: str) -> None:
        """Remove a namespace."""
        of_model, owner = self._values.get(model, {}), owner_of(namespace_id)
        if owner in of_model:
            of_model[owner].pop(short_id(namespace_id), None)
            if not of_model[owner]:
                del of_model[owner]

    def describe(self) -> Iterator[Metric]:
        """Yield the metrics without samples, as the registry asks for."""
        for gauge in self._gauges:
            yield GaugeMetricFamily(gauge.name, gauge.text, labels=("model", "namespace"))

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        for gauge in self._gauges:
            family = GaugeMetricFamily(gauge.name, gauge.text, labels=("model", "namespace"))
            for model, owners in self._values.items():
                in_turns = chain.from_iterable(
                    zip_longest(*(one.items() for one in owners.values()))
                )
                values = [(one[0], float(one[1][gauge.name])) for one in in_turns if one]
                for name, value in values[:SHOWN]:
                    family.add_metric((model, name), value)
                if rest := [value for _, value in values[SHOWN:]]:
                    family.add_metric((model, OTHER), reduce(_WORST[gauge.worst], rest))
            yield family
