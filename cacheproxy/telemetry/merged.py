"""Merges the metrics of several processes into one exposition.

prometheus_client's multiprocess mode keeps every series in files that outlive their processes and
makes each count slower. Here each process counts in memory and sends a snapshot at a scrape.
"""

import math
import operator
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

import msgspec
from prometheus_client import Metric as PrometheusMetric
from prometheus_client import generate_latest
from prometheus_client.registry import Collector

from cacheproxy.telemetry.metrics import Merge

_TAKE: dict[Merge, Callable[[float, float], float]] = {"sum": operator.add, "max": max, "min": min}

_KINDS: dict[str, Merge] = {"counter": "sum", "histogram": "sum", "info": "max"}
"""Kinds of metrics with a fixed way to merge."""

_LASTING = ("counter", "histogram")
"""Kinds that must not shrink when a process ends."""


class Sample(msgspec.Struct, frozen=True, array_like=True):
    """One value of one series."""

    name: str
    labels: dict[str, str]
    value: float


class Family(msgspec.Struct, frozen=True, array_like=True):
    """A metric of one process or of several: its series, and how they are merged.

    Attributes:
        kind: its type, as prometheus_client names it.
    """

    name: str
    text: str
    kind: str
    merge: Merge
    samples: list[Sample]


def take_snapshot(registry: Collector, merges: Mapping[str, Merge]) -> list[Family]:
    """Return the current values of a registry; `merges` says how its gauges are merged.

    Raises:
        KeyError: `merges` lacks one of the gauges.
    """
    return [
        Family(
            name=metric.name,
            text=metric.documentation,
            kind=metric.type,
            merge=_KINDS.get(metric.type) or merges[metric.name],
            samples=[Sample(one.name, one.labels, one.value) for one in metric.samples],
        )
        for metric in registry.collect()
    ]


def merge(snapshots: Iterable[Sequence[Family]]) -> list[Family]:
    """Merge snapshots; series keep the order in which they are first seen."""
    families: dict[str, Family] = {}
    samples: dict[str, dict[tuple[object, ...], Sample]] = {}
    for family in (family for snapshot in snapshots for family in snapshot):
        families.setdefault(family.name, family)
        merged = samples.setdefault(family.name, {})
        for sample in family.samples:
            key = (sample.name, *sample.labels.items())
            known = merged.get(key)
            merged[key] = sample if known is None else _merge_two(family.merge, known, sample)
    return [
        msgspec.structs.replace(family, samples=list(samples[name].values()))
        for name, family in families.items()
    ]


def only(families: Iterable[Family], names: Collection[str]) -> list[Family]:
    """Return the samples of these names alone."""
    kept = (
        msgspec.structs.replace(
            family, samples=[sample for sample in family.samples if sample.name in names]
        )
        for family in families
    )
    return [family for family in kept if family.samples]


def lasting(families: Iterable[Family]) -> list[Family]:
    """Return the families that still count after their process has ended."""
    return [family for family in families if family.kind in _LASTING]


def render(families: Sequence[Family]) -> bytes:
    """Return the Prometheus text format."""
    return generate_latest(_Collected(families))


class _Collected:
    """Adapts families to what prometheus_client collects."""

    def __init__(self, families: Sequence[Family]) -> None:
        self._families = families

    def collect(self) -> Iterator[PrometheusMetric]:
        for family in self._families:
            metric = PrometheusMetric(family.name, family.text, family.kind)
            for sample in family.samples:
                metric.add_sample(sample.name, sample.labels, sample.value)
            yield metric


def _merge_two(merge: Merge, one: Sample, other: Sample) -> Sample:
    if math.isnan(one.value):
        return other
    if math.isnan(other.value):
        return one
    return Sample(one.name, one.labels, _TAKE[merge](one.value, other.value))
