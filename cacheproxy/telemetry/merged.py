"""Merges the metrics of several processes into one exposition.

prometheus_client's multiprocess mode keeps every series in files that outlive their processes and
makes each count slower. Here each process counts in memory and sends a snapshot at a scrape.
"""

import math
import operator
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec
from prometheus_client import Metric as PrometheusMetric
from prometheus_client import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar as PrometheusExemplar
from prometheus_client.samples import Sample as PrometheusSample

from cacheproxy.concurrency.parts import in_turns
from cacheproxy.telemetry.metrics import Merge

_TAKE: dict[Merge, Callable[[float, float], float]] = {"sum": operator.add, "max": max, "min": min}

TextFormat = Literal["prometheus", "openmetrics"]
"""Only the second one has exemplars."""

GENERATE: dict[TextFormat, Callable[[Any], bytes]] = {
    "prometheus": generate_latest,
    "openmetrics": generate_openmetrics,
}
"""Writes what a collector yields."""

_END = b"# EOF\n"
"""The last line of OpenMetrics."""

_COMMENT = b"# "
"""How the lines of a metric's head begin."""

_KINDS: dict[str, Merge] = {"counter": "sum", "histogram": "sum", "info": "max"}
"""Kinds of metrics with a fixed way to merge."""

_LASTING = ("counter", "histogram")
"""Kinds that must not shrink when a process ends."""


class Exemplar(msgspec.Struct, frozen=True, array_like=True):
    """One observation: the id of the trace that it was made in, and its Unix time, seconds."""

    labels: dict[str, str]
    value: float
    timestamp: float


class Sample(msgspec.Struct, frozen=True, array_like=True):
    """One value of one series; a bucket may have an exemplar."""

    name: str
    labels: dict[str, str]
    value: float
    exemplar: Exemplar | None = None


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
    return _joined([_family_of(metric, merges) for metric in registry.collect()])


async def take_snapshot_in_turns(registry: Collector, merges: Mapping[str, Merge]) -> list[Family]:
    """Do the same; other tasks have their turn meanwhile."""
    return _joined([_family_of(metric, merges) async for metric in in_turns(registry.collect())])


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


def render(families: Sequence[Family], text_format: TextFormat = "prometheus") -> bytes:
    """Return metrics in a text format."""
    return GENERATE[text_format](_Collected(families))


async def expose(registry: Collector, text_format: TextFormat) -> bytes:
    """Return all metrics in a text format; other tasks have their turn meanwhile.

    Two models have 1,900 lines. At once these take 26 ms on a CPU without VNNI, and longer beside
    inference on all cores: one scrape a second would decide the p99 of 50 requests a second.
    """
    parts: list[bytes] = []
    name = ""
    async for metric in in_turns(registry.collect()):
        part = GENERATE[text_format](_Collector([metric])).removesuffix(_END)
        while metric.name == name and part.startswith(_COMMENT):
            part = part[part.index(b"\n") + 1 :]  # a metric that comes in parts has one head
        name = metric.name
        parts.append(part)
    return b"".join([*parts, _END] if text_format == "openmetrics" else parts)


class _Collector:
    """Metrics that were collected before."""

    def __init__(self, metrics: Sequence[PrometheusMetric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[PrometheusMetric]:
        return self._metrics


class _Collected:
    """Adapts families to what prometheus_client collects."""

    def __init__(self, families: Sequence[Family]) -> None:
        self._families = families

    def collect(self) -> Iterator[PrometheusMetric]:
        for family in self._families:
            metric = PrometheusMetric(family.name, family.text, family.kind)
            for sample in family.samples:
                found = sample.exemplar
                exemplar = (
                    None
                    if found is None
                    else PrometheusExemplar(found.labels, found.value, found.timestamp)
                )
                metric.add_sample(sample.name, sample.labels, sample.value, exemplar=exemplar)
            yield metric


def _family_of(metric: PrometheusMetric, merges: Mapping[str, Merge]) -> Family:
    return Family(
        name=metric.name,
        text=metric.documentation,
        kind=metric.type,
        merge=_KINDS.get(metric.type) or merges[metric.name],
        samples=[
            Sample(one.name, one.labels, one.value, _exemplar_of(one)) for one in metric.samples
        ],
    )


def _joined(families: Iterable[Family]) -> list[Family]:
    """Return the families; one that was collected in parts, which follow each other, is one."""
    joined: list[Family] = []
    for family in families:
        if joined and joined[-1].name == family.name:
            joined[-1].samples.extend(family.samples)
        else:
            joined.append(family)
    return joined


def _merge_two(merge: Merge, one: Sample, other: Sample) -> Sample:
    if math.isnan(one.value):
        return other
    if math.isnan(other.value):
        return one
    exemplars = [found.exemplar for found in (one, other) if found.exemplar is not None]
    latest = max(exemplars, key=lambda exemplar: exemplar.timestamp, default=None)
    return Sample(one.name, one.labels, _TAKE[merge](one.value, other.value), latest)


def _exemplar_of(sample: PrometheusSample) -> Exemplar | None:
    found = sample.exemplar
    if found is None:
        return None
    return Exemplar(dict(found.labels), found.value, float(found.timestamp or 0))
