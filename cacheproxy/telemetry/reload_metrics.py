"""The counts of reloads: those of a process by itself, or the supervisor's for all workers."""

from prometheus_client import CollectorRegistry, Counter, Gauge

RELOADED_AT = "cacheproxy_reload_success_timestamp_seconds"
"""The name of the gauge; the highest of several processes' counts."""


RELOAD_WELL = "cacheproxy_reload_successful"
"""The name of the gauge; the lowest of several processes' counts."""


class ReloadMetrics:
    """Reloads by outcome, how the last one ended, and when the last one was taken."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.reloads = Counter(
            "cacheproxy_reloads",
            "Reloads of the settings, by result (done, refused)",
            ("result",),
            registry=registry,
        )
        for result in ("done", "refused"):
            self.reloads.labels(result)
        self.is_well = Gauge(
            RELOAD_WELL,
            "0 if the last reload was refused, so that older settings run; else 1",
            registry=registry,
        )
        self.is_well.set(1)
        self.succeeded_at = Gauge(
            RELOADED_AT, "Unix time of the last reload that was done; 0 before", registry=registry
        )
