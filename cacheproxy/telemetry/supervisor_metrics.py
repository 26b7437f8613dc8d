"""The metrics of the process that supervises workers."""

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector

from cacheproxy.telemetry.metrics import PROCESS_MERGES, Merge
from cacheproxy.telemetry.namespaces.traffic import BusiestNamespaces
from cacheproxy.telemetry.reload_metrics import ReloadMetrics


class SupervisorMetrics:
    """What only the supervisor knows; merged with the metrics of its workers.

    Attributes:
        merges: how each gauge is merged, by its name.
    """

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.merges: dict[str, Merge] = {**PROCESS_MERGES, "cacheproxy_workers": "sum"}
        ProcessCollector(registry=registry)
        self.workers = Gauge("cacheproxy_workers", "Workers that serve requests", registry=registry)
        self.worker_restarts = Counter(
            "cacheproxy_worker_restarts",
            "Workers started to replace one that ended",
            registry=registry,
        )
        self.reload = ReloadMetrics(registry)
        self.busiest = BusiestNamespaces(registry)
