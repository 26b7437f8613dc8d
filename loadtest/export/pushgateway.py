"""Pushes the figures of a result to a Prometheus Pushgateway.

Remote write would need Protocol Buffers and Snappy for figures that come once a run, which is what
the Pushgateway is for. A later push of the same scenario replaces the earlier one.
"""

from collections import Counter
from collections.abc import Iterator
from urllib.error import URLError

from prometheus_client import CollectorRegistry, push_to_gateway
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from ..errors import LoadTestError
from ..results.plots import decode
from ..results.result import Latencies, Result

_BOUNDS_S = tuple(
    digit * 10.0**power for power in range(-5, 2) for digit in (1.0, 2.5, 5.0)
)  # 10 us to 50 s
_TIMEOUT_S = 10.0


def push_result(result: Result, url: str) -> None:
    """Push all figures of a result under the job `loadtest` and its scenario.

    Raises:
        LoadTestError: the Pushgateway does not take them.
    """
    registry = CollectorRegistry()
    registry.register(_Figures(result))
    try:
        push_to_gateway(
            url,
            job="loadtest",
            registry=registry,
            grouping_key={"scenario": result.scenario},
            timeout=_TIMEOUT_S,
        )
    except (URLError, OSError, ValueError) as error:
        raise LoadTestError(f"{url}: {error}") from None


class _Figures(Collector):
    def __init__(self, result: Result) -> None:
        self._result = result

    def collect(self) -> Iterator[Metric]:
        yield from self._gauges()
        latency = HistogramMetricFamily(
            "loadtest_latency_seconds",
            "Latency of answers, from when the request was due.",
            labels=["phase", "stream", "tier"],
        )
        for phase in self._result.phases:
            for stream in phase.streams:
                for latencies in stream.latencies:
                    buckets, total_s = _buckets(latencies)
                    labels = [phase.name, stream.name, latencies.tier]
                    latency.add_metric(labels, buckets, total_s)
        yield latency
        kept = GaugeMetricFamily(
            "loadtest_promise_kept", "1 if a promise was kept, or else 0.", labels=["promise"]
        )
        for promise in self._result.promises:
            kept.add_metric([promise.promise], float(promise.is_kept))
        yield kept
        limit = GaugeMetricFamily(
            "loadtest_limit_per_second", "Limit that find-limit found.", labels=["bound"]
        )
        if (found := self._result.limit) is not None:
            for bound, value in (
                ("low", found.low_per_s),
                ("estimate", found.per_s),
                ("high", found.high_per_s),
            ):
                if value is not None:
                    limit.add_metric([bound], value)
        yield limit

    def _gauges(self) -> Iterator[Metric]:
        families: dict[str, GaugeMetricFamily] = {}
        for phase in self._result.phases:
            for stream in phase.streams:
                for figure, value in stream.figures.items():
                    name, factor = _metric(figure)
                    if name not in families:
                        help_text = f"{figure} of a stream in a phase."
                        families[name] = GaugeMetricFamily(
                            name, help_text, labels=["phase", "stream"]
                        )
                    families[name].add_metric([phase.name, stream.name], value * factor)
        yield from families.values()


def _metric(figure: str) -> tuple[str, float]:
    """Return a metric's name, in base units as Prometheus has them, and the factor for it."""
    for ending, unit, factor in (
        ("_ms", "_seconds", 0.001),
        ("_per_s", "_per_second", 1.0),
        ("_share", "_ratio", 1.0),
    ):
        if figure.endswith(ending):
            return f"loadtest_{figure.removesuffix(ending)}{unit}", factor
    return f"loadtest_{figure}", 1.0


def _buckets(latencies: Latencies) -> tuple[list[tuple[str, float]], float]:
    """Return cumulative counts by upper bound in seconds, and the sum of all values."""
    counts: Counter[int] = Counter()
    for histogram in decode(latencies):
        for item in histogram.get_recorded_iterator():
            counts[item.value_iterated_to] += item.count_at_value_iterated_to
    found = [
        (f"{bound:g}", float(sum(n for value, n in counts.items() if value <= bound * 1e6)))
        for bound in _BOUNDS_S
    ]
    total_s = sum(value * n for value, n in counts.items()) / 1e6
    return [*found, ("+Inf", float(counts.total()))], total_s
