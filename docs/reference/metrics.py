"""The metrics reference: every series that a server exports, from its registry."""

from collections.abc import Iterator
from typing import NamedTuple

from prometheus_client import Metric
from tables import code, table

from cacheproxy.telemetry.metrics import Merge, Metrics
from cacheproxy.telemetry.supervisor_metrics import SupervisorMetrics

_INTRO = """\
# Metrics

`GET /metrics` serves these series in Prometheus' text format, and `GET /metrics?name[]=NAME` one
of them; `name[]` may be given several times. Names carry base units: seconds, bytes, or a count.
[Operations](../operations.md) says which of them to watch, and the [runbook](../runbook.md) what to
do about each alert.

With several workers, one scrape of any worker covers all of them: counters and histograms are
summed, and the column "workers" says how a gauge is merged. A gauge with the labels `model` and
`namespace` has series of its own for the 50 busiest namespaces of a model in each worker; `other`
shows the worst value of the rest. A counter with the label `namespace` has them for the busiest
ones, as many as `metrics.namespaces` says, and `other` has what the rest was answered.

"""

_MERGES: dict[Merge, str] = {"sum": "sum", "max": "highest", "min": "lowest"}

_SUFFIXES = {"counter": "_total", "info": "_info"}


class _Series(NamedTuple):
    name: str
    kind: str
    labels: tuple[str, ...]
    text: str
    merged: str


def page() -> str:
    """Return the page's Markdown."""
    groups: dict[str, list[_Series]] = {}
    # Some series are a process's by itself and the supervisor's where there is one.
    found_once = {
        series.name: series
        for metrics in (SupervisorMetrics(), Metrics())
        for series in _series_of(metrics)
    }
    own = dict.fromkeys(series.name for series in _series_of(Metrics()))
    for name in {**own, **found_once}:
        groups.setdefault(_group_of(name), []).append(found_once[name])
    parts = [_INTRO]
    for heading, found in groups.items():
        rows = (
            (code(each.name), each.kind, ", ".join(map(code, each.labels)), each.text, each.merged)
            for each in found
        )
        parts.append(f"## {heading}\n\n")
        parts.append(table(("name", "type", "labels", "meaning", "workers"), rows))
    parts.append(
        "Beside these, `process_…` and `python_info` are prometheus_client's own; with several "
        "workers `process_…` covers all processes.\n"
    )
    return "".join(parts)


def _series_of(metrics: Metrics | SupervisorMetrics) -> Iterator[_Series]:
    groups = [metrics, metrics.reload]
    if isinstance(metrics, Metrics):
        groups.append(metrics.rollout)
    for collector in (one for group in groups for one in vars(group).values()):
        if not hasattr(collector, "describe"):
            continue
        for family in collector.describe():
            labels = getattr(collector, "_labelnames", None) or _labels_of(family)
            merge = metrics.merges.get(family.name)
            yield _Series(
                family.name + _SUFFIXES.get(family.type, ""),
                family.type,
                tuple(labels),
                family.documentation,
                _MERGES[merge] if merge else "sum" if family.type != "info" else "",
            )


def _labels_of(family: Metric) -> tuple[str, ...]:
    return tuple(getattr(family, "_labelnames", ()))


_GROUPS = {
    "Requests and lookups": ("requests", "request_", "lookups", "collapsed", "stage_", "build"),
    "Inference": ("model_", "batch_", "queue_", "inference_", "truncated_", "shed"),
    "Search index": ("semantic_index_",),
    "Semantic tier": ("semantic_",),
    "Store, purges and write-back": ("store_", "undecodable_", "purge", "hot_", "writeback_"),
    "Chat and upstreams": ("saved_", "stale_", "cache_reports", "upstream_", "chat_", "slow_"),
    "Recording": ("recorded_", "unrecorded_"),
    "Busiest namespaces": ("namespace_",),
    "Settings": ("settings", "reload", "key_reloads", "tls_reloads"),
    "Workers": ("worker",),
}
"""Headings by the beginnings of names without their prefix; the first that fits counts."""


def _group_of(name: str) -> str:
    plain = name.removeprefix("cacheproxy_")
    for heading, beginnings in _GROUPS.items():
        if plain.startswith(beginnings):
            return heading
    return "Other"
