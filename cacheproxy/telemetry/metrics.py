"""Every Prometheus series that cacheproxy exports, in one place, with bounded labels.

Names carry base units. Code in the hot path binds its labelled children once, because looking up a
label set costs more than counting.

Several workers are scraped as one: counters and histograms are summed, and each gauge declares here
how the workers' values are merged (`merged`).
"""

from typing import Literal

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)

from cacheproxy.telemetry.loop_counters import LoopCounter, LoopHistogram
from cacheproxy.telemetry.namespaces.gauges import NamespaceGauge, NamespaceGauges
from cacheproxy.telemetry.namespaces.traffic import BusiestNamespaces, NamespaceTallies
from cacheproxy.telemetry.reload_metrics import RELOAD_WELL, RELOADED_AT, ReloadMetrics
from cacheproxy.telemetry.rollout_metrics import WARM_UP, RolloutMetrics

# A creation time beside every series would double the size of a scrape for no reader.
disable_created_metrics()  # type: ignore[no-untyped-call]

LATENCY_BUCKETS = (
    *(0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)
"""Upper bounds of the buckets of every duration histogram, seconds."""

_SCORE_BUCKETS = (
    *(0.3, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.875),
    *(0.9, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.99, 0.995, 1.0),
)

Merge = Literal["sum", "max", "min"]
"""How the values of a gauge in several processes are merged; NaN yields to any number."""

SEMANTIC_THRESHOLD = "cacheproxy_semantic_threshold"
SEMANTIC_CERTIFIED = "cacheproxy_semantic_certified"
SEMANTIC_ERROR = "cacheproxy_semantic_error_estimate"
SEMANTIC_ERROR_UPPER = "cacheproxy_semantic_error_upper_bound"
SEMANTIC_PAIRS_NEEDED = "cacheproxy_semantic_pairs_needed"
SEMANTIC_ASIDE = "cacheproxy_semantic_aside"

_SEMANTIC_GAUGES = (
    NamespaceGauge(
        SEMANTIC_THRESHOLD, "Lowest score that is served; 2 while the tier is closed", "max"
    ),
    NamespaceGauge(SEMANTIC_CERTIFIED, "1 while a certified threshold is open", "min"),
    NamespaceGauge(SEMANTIC_ERROR, "Estimated share of wrong semantic hits", "max"),
    NamespaceGauge(
        SEMANTIC_ERROR_UPPER, "Upper confidence limit of the share of wrong semantic hits", "max"
    ),
    NamespaceGauge(
        SEMANTIC_PAIRS_NEEDED,
        "Labels still missing for a certificate, about; +Inf if no threshold is safe",
        "max",
    ),
    NamespaceGauge(
        SEMANTIC_ASIDE,
        "1 while the tier stands aside because lookups cost more than they save",
        "max",
    ),
)

PROCESS_MERGES: dict[str, Merge] = {
    "process_virtual_memory_bytes": "sum",
    "process_resident_memory_bytes": "sum",
    "process_start_time_seconds": "min",
    "process_open_fds": "sum",
    "process_max_fds": "sum",
    "python_info": "max",
    RELOADED_AT: "max",
    RELOAD_WELL: "min",
    WARM_UP: "min",
}
"""How the gauges are merged that every process has, prometheus_client's own among them."""


class Metrics:
    """The series, registered in a registry of their own so that tests do not share counts.

    Attributes:
        merges: how each gauge is merged, by its name.
    """

    def __init__(self) -> None:
        # Collectors that do not name their metrics beforehand are asked for them.
        self.registry = registry = CollectorRegistry(auto_describe=True)
        self.merges = dict(PROCESS_MERGES)
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"cacheproxy_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str, merge: Merge) -> Gauge:
            self.merges[f"cacheproxy_{name}"] = merge
            return Gauge(f"cacheproxy_{name}", text, labels, registry=registry)

        def histogram(
            name: str, text: str, *labels: str, buckets: tuple[float, ...] = LATENCY_BUCKETS
        ) -> Histogram:
            return Histogram(f"cacheproxy_{name}", text, labels, registry=registry, buckets=buckets)

        def loop_counter(name: str, text: str, *labels: str) -> LoopCounter:
            return LoopCounter(f"cacheproxy_{name}", text, labels, registry)

        def loop_histogram(
            name: str, text: str, *labels: str, buckets: tuple[float, ...] = LATENCY_BUCKETS
        ) -> LoopHistogram:
            return LoopHistogram(f"cacheproxy_{name}", text, labels, buckets, registry)

        self.build_info = Info("cacheproxy_build", "Version and models served", registry=registry)
        self.settings_info = Info(
            "cacheproxy_settings", "Hash of the settings that run", registry=registry
        )
        self.reload = ReloadMetrics(registry)
        self.rollout = RolloutMetrics(registry, LATENCY_BUCKETS)
        self.tallies = NamespaceTallies()
        self.busiest = BusiestNamespaces(registry)

        self.requests = loop_counter("requests", "Requests answered", "route", "model", "status")
        self.request_duration = loop_histogram(
            "request_duration_seconds",
            "Time from the parsed request to its answer",
            "route",
            "outcome",
        )
        self.loop_delay = loop_histogram(
            "event_loop_delay_seconds",
            "By how much a timer of the event loop is late, ten times a second",
        )
        self.lookups = loop_counter(
            "lookups",
            "Lookups in a tier (hit, miss): texts, or chat requests",
            "model",
            "tier",
            "result",
        )
        self.collapsed = loop_counter(
            "collapsed", "Misses that joined an inference already in flight", "model"
        )
        self.stage_duration = loop_histogram(
            "stage_duration_seconds", "Time of one request in one stage", "stage"
        )

        self.model_memory = gauge(
            "model_memory_bytes",
            "Memory that loading a local model took in one process",
            "model",
            merge="max",
        )
        self.batch_texts = loop_histogram(
            "batch_texts",
            "Texts in one inference; the sum counts the texts that were inferred",
            "model",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128),
        )
        self.batch_tokens = loop_histogram(
            "batch_tokens",
            "Tokens in one inference",
            "model",
            buckets=(8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192),
        )
        self.queue_depth = gauge("queue_depth", "Texts waiting for inference", "model", merge="sum")
        self.queue_wait = loop_histogram(
            "queue_wait_seconds", "Wait of a text from submission to its inference", "model"
        )
        self.batch_window = gauge(
            "batch_window_seconds",
            "Longest time that a text waits for others to share its group, as configured",
            merge="max",
        )
        self.inference_duration = loop_histogram(
            "inference_duration_seconds", "Time of one inference", "model"
        )
        self.inference_errors = counter(
            "inference_errors", "Texts without a usable vector", "model", "reason"
        )
        self.truncated_texts = loop_counter(
            "truncated_texts", "Inputs truncated to the model's most tokens", "model"
        )
        self.key_reloads = counter(
            "key_reloads",
            "Readings of the file of API keys after a change (done, failed)",
            "result",
        )
        self.shed = counter("shed", "Requests refused to protect the rest", "reason")

        self.semantic_score = loop_histogram(
            "semantic_score", "Score of the nearest neighbour", "model", buckets=_SCORE_BUCKETS
        )
        self.semantic_promised_error = gauge(
            "semantic_promised_error",
            "Promised upper limit on the share of wrong semantic hits",
            "model",
            merge="max",
        )
        self.semantic_namespaces = NamespaceGauges(
            _SEMANTIC_GAUGES, registry, self.tallies.busyness
        )
        self.merges |= {gauge.name: gauge.worst for gauge in _SEMANTIC_GAUGES}
        self.semantic_alarms = counter(
            "semantic_alarms",
            "Alarms that closed the tier or tightened it (hits, canary, refuted)",
            "model",
            "kind",
        )
        self.semantic_checks_waiting = gauge(
            "semantic_checks_waiting",
            "Answers and hits that wait to be learned from in the background",
            merge="sum",
        )
        self.semantic_check_errors = counter(
            "semantic_check_errors", "Background checks that failed to start: an internal error"
        )
        self.semantic_spared = counter(
            "semantic_spared_seconds",
            "Seconds of inference that semantic hits saved, estimated",
            "model",
        )
        self.semantic_labels = counter(
            "semantic_shadow_labels",
            "Labels: neighbours compared with the truth, or judged (right, wrong, unreadable)",
            "model",
            "result",
        )

        self.judge_controls = counter(
            "judge_controls",
            "Judged pairs whose verdict is known (kinds hard, traffic, injected, own)",
            "model",
            "kind",
            "result",
        )
        self.judge_failures = counter(
            "judge_failures", "Judgements that failed because the judge could not be asked", "model"
        )
        self.own_requests = counter(
            "own_requests",
            "Requests of the proxy's own to upstreams (label, control, sensitivity, reference)",
            "model",
            "purpose",
        )
        self.own_tokens = counter(
            "own_tokens", "Tokens of the proxy's own requests", "model", "purpose"
        )
        self.own_cost = counter(
            "own_cost",
            "Cost of the proxy's own requests: by the configured prices, else in input tokens",
            "model",
            "purpose",
        )

        self.store_up = gauge(
            "store_up", "1 if the store replied to the last call, even with an error", merge="min"
        )
        self.store_breaker_state = gauge(
            "store_breaker_state",
            "Circuit breaker: 0 closed, 1 half-open, 2 open (get, nearest, put)",
            "op",
            merge="max",
        )
        self.store_errors = counter("store_errors", "Failed store calls, by kind of error", "kind")
        self.store_skipped = counter(
            "store_skipped",
            "Lookups skipped: the breaker was open or the deadline had passed",
            "op",
        )
        self.store_op_duration = loop_histogram(
            "store_op_duration_seconds", "Time of one store call", "op"
        )
        self.undecodable_records = counter(
            "undecodable_records", "Entries from the store that did not decode; each is a miss"
        )
        self.store_entries = gauge(
            "store_entries", "Entries in the store; NaN if the store keeps no count", merge="max"
        )
        self.tls_reloads = counter("tls_reloads", "Readings of a changed certificate", "result")
        self.undecryptable = gauge("store_undecryptable", "Records no key decrypts", merge="sum")
        self.store_bytes = gauge(
            "store_bytes",
            "Bytes of the entries in the store; NaN if the store keeps no count",
            merge="max",
        )
        self.purge_generation = gauge(
            "purge_generation",
            "Number of the newest known purge; equal in all servers once they have heard it",
            merge="max",
        )
        self.purges_heard = gauge(
            "purges_heard",
            "1 while this server receives the purges of other processes",
            merge="min",
        )
        self.store_nodes_unanswered = gauge(
            "store_nodes_unanswered",
            "Lookups that went on without a node of a cluster, which cost hits, since start-up",
            merge="sum",
        )
        self.semantic_index_up = gauge(
            "semantic_index_up", "1 while the store can search by probe", merge="min"
        )
        self.semantic_index_documents = gauge(
            "semantic_index_documents",
            "Entries in the index; NaN if unknown",
            merge="max",
        )
        self.semantic_index_failures = gauge(
            "semantic_index_failures",
            "Entries that could not be indexed; NaN if unknown",
            merge="max",
        )
        self.semantic_index_bytes = gauge(
            "semantic_index_bytes", "Memory of the index, bytes; NaN if unknown", merge="max"
        )
        self.semantic_index_indexed_ratio = gauge(
            "semantic_index_indexed_ratio",
            "Share of entries that are indexed; NaN if unknown",
            merge="min",
        )
        self.semantic_index_rebuilds = gauge(
            "semantic_index_rebuilds",
            "Rebuilds of an index that returned nothing for existing entries, since start-up",
            merge="sum",
        )
        self.saved_tokens = loop_counter(
            "saved_tokens", "Tokens of completions that hits saved", "model", "kind"
        )
        self.saved_seconds = loop_counter(
            "saved_seconds", "Seconds of upstream time that hits saved", "model"
        )
        self.saved_cost = loop_counter(
            "saved_cost", "Cost that hits saved, from the configured prices", "model"
        )
        self.stale_served = counter(
            "stale_served", "Expired completions served (revalidate, error)", "reason"
        )
        self.cache_reports = counter(
            "cache_reports", "Hits that clients reported as wrong", "model"
        )
        self.upstream_responses = counter(
            "upstream_responses", "Responses of upstreams, by status code", "upstream", "code"
        )
        self.upstream_errors = counter(
            "upstream_errors",
            "Upstream calls that gave no complete answer (connect, timeout, truncated, malformed, "
            "or status: 5xx, and the next upstream was asked)",
            "upstream",
            "kind",
        )
        self.upstream_first_byte = histogram(
            "upstream_first_byte_seconds",
            "Time from the start of an upstream call to the head of its response",
            "upstream",
        )
        self.upstream_breaker_state = gauge(
            "upstream_breaker_state",
            "Circuit breaker of an upstream: 0 closed, 1 half-open, 2 open",
            "upstream",
            merge="max",
        )
        self.chat_waiting = gauge(
            "chat_waiting", "Requests that wait for an upstream or read its answer", merge="sum"
        )
        self.slow_clients_closed = counter(
            "slow_clients_closed", "Streams ended because the client did not read"
        )
        self.hot_entries = gauge("hot_entries", "Entries in the hot tier", merge="sum")
        self.hot_bytes = gauge("hot_bytes", "Bytes of the entries in the hot tier", merge="sum")
        self.writeback_queue = gauge(
            "writeback_queue_entries", "Entries waiting to be stored", merge="sum"
        )
        self.writeback_stored = counter("writeback_stored", "Entries stored")
        self.writeback_dropped = counter(
            "writeback_dropped",
            "Entries dropped before they were stored; each costs a later miss",
            "reason",
        )
        self.recorded = counter("recorded_requests", "Requests recorded for replay")
        self.unrecorded = counter(
            "unrecorded_requests",
            "Requests that were not recorded, by reason (full, unreadable, error)",
            "reason",
        )
