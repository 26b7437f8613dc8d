"""What is counted while a new model or version comes beside the old one."""

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Gauge

from cacheproxy.telemetry.loop_counters import LoopCounter, LoopHistogram

WARM_UP = "cacheproxy_warm_up_ratio"
"""The name of the gauge; the lowest of several processes' counts."""


class RolloutMetrics:
    """Warm-up, and a model beside its canary.

    Attributes:
        variant_requests, variant_duration: by the name that was asked for, and who answered.
        warm_up: how far the warm-up has come.
    """

    def __init__(self, registry: CollectorRegistry, buckets: Sequence[float]) -> None:
        """Register the series; `buckets` are the bounds of durations, seconds."""
        labels = ("model", "variant")
        self.variant_requests = LoopCounter(
            "cacheproxy_variant_requests",
            "Requests for a model that has a canary, by who answered (canary, stable)",
            (*labels, "status"),
            registry,
        )
        self.variant_duration = LoopHistogram(
            "cacheproxy_variant_duration_seconds",
            "Time from the parsed request to its answer, where the model has a canary",
            (*labels, "outcome"),
            buckets,
            registry,
        )
        self.warm_up = Gauge(
            WARM_UP,
            "Share of the warm-up that is done; below 1 in a ready server, it was cut short",
            registry=registry,
        )
        self.warm_up.set(1)
