"""Gauges labelled by namespace, with a bound: the first namespaces by name, the rest as `other`.

A client can name any number of namespaces, and neither a scrape nor Prometheus may grow with them.
`other` shows the worst value of the rest, so that an alert misses none. The same rule merges the
values of several processes.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from typing import Literal, NamedTuple

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import GaugeMetricFamily

SHOWN = 50
"""Namespaces of a model that have their own series: the first ones seen."""

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
        self._values: dict[str, dict[str, Mapping[str, float]]] = {}
        registry.register(self)

    def set(self, model: str, namespace: str, values: Mapping[str, float]) -> None:
        """Set the values of a namespace, keyed by gauge name."""
        self._values.setdefault(model, {})[namespace] = values

    def forget(self, model: str, namespace: str) -> None:
        """Remove a namespace."""
        self._values.get(model, {}).pop(namespace, None)

    def describe(self) -> Iterator[Metric]:
        """Yield the metrics without samples, as the registry asks for."""
        for gauge in self._gauges:
            yield GaugeMetricFamily(gauge.name, gauge.text, labels=("model", "namespace"))

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        for gauge in self._gauges:
            family = GaugeMetricFamily(gauge.name, gauge.text, labels=("model", "namespace"))
            for model, namespaces in self._values.items():
                values = [(name, float(each[gauge.name])) for name, each in namespaces.items()]
                for name, value in values[:SHOWN]:
                    family.add_metric((model, name), value)
                if rest := [value for _, value in values[SHOWN:]]:
                    family.add_metric((model, OTHER), reduce(_WORST[gauge.worst], rest))
            yield family
