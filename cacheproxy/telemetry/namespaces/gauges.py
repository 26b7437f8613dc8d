"""Gauges labelled by namespace, with a bound: some namespaces by name, the rest as `other`.

A client can name any number of namespaces, and neither a scrape nor Prometheus may grow with them.
Of each tenant the busiest are shown, and tenants take turns until the bound is reached, so that one
with many namespaces hides no other. `other` shows the worst value of the rest, so that an alert
misses none. The same rule merges the values of several processes, each of which chooses its own.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import reduce
from itertools import chain, zip_longest
from typing import Literal, NamedTuple

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import GaugeMetricFamily

from cacheproxy.keys import owner_of, short_id

SHOWN = 50
"""Namespaces of a model that have their own series."""

OTHER = "other"

OVERTAKES = 2.0
"""How many times as busy another namespace has to be to take a series from one."""

_WORST = {"max": max, "min": min}


class NamespaceGauge(NamedTuple):
    """A gauge: its name, its help text, and which of two values is the worse one."""

    name: str
    text: str
    worst: Literal["max", "min"]


class NamespaceGauges:
    """The gauges of every namespace, labelled with model and namespace."""

    def __init__(
        self,
        gauges: Sequence[NamespaceGauge],
        registry: CollectorRegistry,
        busyness: Callable[[str, str], float],
    ) -> None:
        """Register; `busyness` tells of a model and a short id how busy the namespace is."""
        self._gauges = gauges
        self._busyness = busyness
        self._shown: dict[str, set[str]] = {}
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
        ordered = {model: self._ordered(model) for model in self._values}
        for gauge in self._gauges:
            family = GaugeMetricFamily(gauge.name, gauge.text, labels=("model", "namespace"))
            for model, found in ordered.items():
                values = [(name, float(gauges[gauge.name])) for name, gauges in found]
                for name, value in values[:SHOWN]:
                    family.add_metric((model, name), value)
                if rest := [value for _, value in values[SHOWN:]]:
                    family.add_metric((model, OTHER), reduce(_WORST[gauge.worst], rest))
            yield family

    def _ordered(self, model: str) -> list[tuple[str, Mapping[str, float]]]:
        """Return a model's namespaces with their values, those that are shown first."""
        shown = self._shown.get(model, set())

        def rank(name: str) -> float:
            return self._busyness(model, name) * (OVERTAKES if name in shown else 1.0)

        owners = [
            sorted(of_owner.items(), key=lambda one: rank(one[0]), reverse=True)
            for of_owner in self._values[model].values()
        ]
        owners.sort(key=lambda of_owner: rank(of_owner[0][0]), reverse=True)
        in_turns = chain.from_iterable(zip_longest(*owners))
        ordered = [one for one in in_turns if one is not None]
        self._shown[model] = {name for name, _ in ordered[:SHOWN]}
        return ordered
