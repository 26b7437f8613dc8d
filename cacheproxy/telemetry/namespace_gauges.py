"""Gauges by namespace with a bound: the first namespaces each, and the rest as one, `other`.

A client may name namespaces without end; neither a scrape nor Prometheus may grow with them. Of the
rest the worst is shown, by the rule by which several processes' values make one, so that an alert
misses none of them.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from typing import Literal, NamedTuple

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import GaugeMetricFamily

SHOWN = 50
"""Namespaces of a model that have series of their own: those that came first."""

OTHER = "other"

_WORST = {"max": max, "min": min}


class NamespaceGauge(NamedTuple):
    """What one of the gauges is called, what it says, and which of two values is the worse one."""

    name: str
    text: str
    worst: Literal["max", "min"]


class NamespaceGauges:
    """Gauges that every namespace has, labelled with the model and the namespace."""

    def __init__(self, gauges: Sequence[NamespaceGauge], registry: CollectorRegistry) -> None:
        self._gauges = gauges
        self._values: dict[str, dict[str, Mapping[str, float]]] = {}
        registry.register(self)

    def set(self, model: str, namespace: str, values: Mapping[str, float]) -> None:
        """Show these values, by the gauges' names, for a namespace."""
        self._values.setdefault(model, {})[namespace] = values

    def forget(self, model: str, namespace: str) -> None:
        """Show nothing more of a namespace."""
        self._values.get(model, {}).pop(namespace, None)

    def describe(self) -> Iterator[Metric]:
        """Yield the metrics without samples, as the registry wants it."""
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
