"""What the dashboard shows: rows of panels, each a title, a kind, and PromQL with its legends.

`dashboard.py` turns them into Grafana's JSON; a panel's place follows from its order here.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

_JOB = 'job=~"$job"'


@dataclass(frozen=True)
class Panel:
    """One panel.

    Attributes:
        queries: PromQL and the legend of what it gives.
        kind: Grafana's name for it.
        unit: Grafana's name for the unit.
        width: of 24 columns.
        text: what a reader should know.
        most: the axis' upper end, where it has one.
        is_stacked: whether the areas stand on each other.
        steps: colours by value, the first from minus infinity on.
        names: words for values.
        colours: colours by legend.
    """

    title: str
    queries: Sequence[tuple[str, str]]
    kind: str = "timeseries"
    unit: str = "short"
    width: int = 8
    text: str = ""
    most: float | None = None
    is_stacked: bool = False
    steps: Sequence[tuple[float | None, str]] = ((None, "blue"),)
    names: dict[str, tuple[str, str]] = field(default_factory=dict)
    colours: dict[str, str] = field(default_factory=dict)


_TIERS = {"hot": "orange", "exact": "blue", "semantic": "purple"}
_TIERS |= {"miss": "#8a8f98", "mixed": "green"}
_RATE = f"{{{_JOB}}}[$__rate_interval]"


def _quantile(quantile: float, histogram: str, by: str) -> str:
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({quantile}, sum by ({labels}) (rate({histogram}_bucket{_RATE})))"


def _both_quantiles(histogram: str, by: str = "") -> list[tuple[str, str]]:
    legend = f"{{{{{by}}}}} " if by else ""
    return [(_quantile(q, histogram, by), f"{legend}p{100 * q:g}") for q in (0.5, 0.99)]


def _mean(histogram: str) -> str:
    return f"sum(rate({histogram}_sum{_RATE})) / sum(rate({histogram}_count{_RATE}))"


_BREAKER = {"0": ("closed", "green"), "1": ("half-open", "orange"), "2": ("open", "red")}
_NAMESPACE = "{{namespace}}"
_TEXTS = f'sum(rate(cacheproxy_lookups_total{{{_JOB}, tier="hot"}}[$__rate_interval]))'
_HITS = f'rate(cacheproxy_lookups_total{{{_JOB}, result="hit"}}[$__rate_interval])'
_REQUESTS = f"sum(rate(cacheproxy_requests_total{_RATE}))"
_FAILED = f'{_JOB}, status=~"5..", status!="504"'
_SERVER_ERRORS = f"sum(rate(cacheproxy_requests_total{{{_FAILED}}}[$__rate_interval]))"
_SPARED = f"sum(cacheproxy:inference_seconds_spared:rate5m{{{_JOB}}})"

ROWS: dict[str, list[Panel]] = {
    "At a glance": [
        Panel(
            "Hit rate",
            [(f"sum({_HITS}) / {_TEXTS}", "")],
            *("stat", "percentunit", 4, "Texts and chat requests that the cache answered."),
            steps=((None, "red"), (0.3, "orange"), (0.5, "green")),
        ),
        Panel("Requests", [(_REQUESTS, "")], "stat", "reqps", 4),
        Panel(
            "Failed",
            [(f"({_SERVER_ERRORS} or vector(0)) / {_REQUESTS}", "")],
            *("stat", "percentunit", 4, "Answers of 500 and above, but for only-if-cached."),
            steps=((None, "green"), (0.001, "red")),
        ),
        Panel(
            "p99",
            [(f"max(cacheproxy:request_duration_seconds:p99{{{_JOB}}})", "")],
            *("stat", "s", 4, "Of embeddings; chat has its upstreams' pace."),
            steps=((None, "green"), (0.1, "orange"), (0.25, "red")),
        ),
        Panel(
            "Inference spared",
            [(_SPARED, "")],
            *("stat", "none", 4, "Seconds of inference that hits spare in a second: busy threads."),
            steps=((None, "purple"),),
        ),
        Panel(
            "Servers",
            [(f"count(up{{{_JOB}}} == 1) or vector(0)", "up"), (f"count(up{{{_JOB}}})", "known")],
            *("stat", "none", 4),
        ),
    ],
    "Service levels, thirty days": [
        Panel(
            f"Budget left: {name} requests",
            [(f"min(cacheproxy:slo_{name}:budget_left30d{{{_JOB}}})", "")],
            *("stat", "percentunit", 12, "Of what the objective allows; negative: it is missed."),
            steps=((None, "red"), (0.0, "orange"), (0.25, "green")),
        )
        for name in ("failed", "slow")
    ],
    "Hits": [
        Panel(
            "Where texts are answered",
            [(f"sum by (tier) ({_HITS}) / on() group_left() {_TEXTS}", "{{tier}}")],
            unit="percentunit",
            width=12,
            most=1,
            is_stacked=True,
            text="What is missing to 100 % is computed.",
            colours=_TIERS,
        ),
        Panel(
            "Looked up",
            [
                (_TEXTS, "all"),
                (f"sum(rate(cacheproxy_batch_texts_sum{_RATE}))", "inferred"),
                (f"sum(rate(cacheproxy_collapsed_total{_RATE}))", "joined an inference in flight"),
            ],
            unit="ops",
            width=12,
        ),
        Panel(
            "Requests by status",
            [(f"sum by (status) (rate(cacheproxy_requests_total{_RATE}))", "{{status}}")],
            unit="reqps",
        ),
        Panel(
            "Inference spared by hits, in threads",
            [
                (_SPARED, "all tiers"),
                (f"sum(rate(cacheproxy_semantic_spared_seconds_total{_RATE}))", "semantic tier"),
            ],
            unit="none",
        ),
        Panel(
            "Refused",
            [(f"sum by (reason) (rate(cacheproxy_shed_total{_RATE}))", "{{reason}}")],
            unit="reqps",
        ),
    ],
    "Latency": [
        Panel(
            "Requests, by what answered",
            _both_quantiles("cacheproxy_request_duration_seconds", "outcome"),
            unit="s",
            width=12,
        ),
        Panel(
            "Stages, p99",
            [(_quantile(0.99, "cacheproxy_stage_duration_seconds", "stage"), "{{stage}}")],
            unit="s",
            width=12,
        ),
    ],
    "Semantic tier": [
        Panel(
            "Threshold by namespace",
            [
                (
                    f"max by (namespace) (cacheproxy_semantic_threshold{{{_JOB}}} < 2)",
                    _NAMESPACE,
                )
            ],
            text="The lowest score that is served. A closed tier has none.",
            most=1,
        ),
        Panel(
            "Error bound of what is served",
            [
                (
                    f"max by (namespace) (cacheproxy_semantic_error_upper_bound{{{_JOB}}})"
                    f" and on(namespace) max by (namespace) "
                    f"(cacheproxy_semantic_certified{{{_JOB}}}) == 1",
                    _NAMESPACE,
                ),
                (f"max(cacheproxy_semantic_promised_error{{{_JOB}}})", "promised"),
            ],
            unit="percentunit",
            text="The upper limit of the share of wrong hits; it stays below what is promised.",
            colours={"promised": "red"},
        ),
        Panel(
            "Labels still missing to open",
            [
                (
                    f"max by (namespace) (cacheproxy_semantic_pairs_needed{{{_JOB}}} < +Inf)",
                    _NAMESPACE,
                )
            ],
            text="A namespace for which no threshold is safe is not shown.",
        ),
        Panel(
            "Scores of nearest neighbours",
            [
                (
                    f"sum by (le) (increase(cacheproxy_semantic_score_bucket{_RATE}))",
                    "{{le}}",
                )
            ],
            kind="heatmap",
            width=12,
        ),
        Panel(
            "Neighbours against the truth",
            [
                (
                    f"sum by (result) (rate(cacheproxy_semantic_shadow_labels_total{_RATE}))",
                    "{{result}}",
                ),
                (
                    f"sum by (kind) (increase(cacheproxy_semantic_alarms_total{_RATE}))",
                    "alarm: {{kind}}",
                ),
            ],
            width=6,
            colours={"right": "green", "wrong": "red"},
        ),
        Panel(
            "Stepped aside",
            [(f"sum(cacheproxy_semantic_aside{{{_JOB}}})", "namespaces where lookups do not pay")],
            width=6,
        ),
    ],
    "Inference": [
        Panel(
            "Texts and tokens in a group, mean",
            [
                (_mean("cacheproxy_batch_texts"), "texts"),
                (_mean("cacheproxy_batch_tokens"), "tokens"),
            ],
        ),
        Panel(
            "Queue",
            [(f"sum by (instance) (cacheproxy_queue_depth{{{_JOB}}})", "{{instance}}")],
            text="Texts that wait for inference.",
        ),
        Panel(
            "Wait for inference",
            [
                *_both_quantiles("cacheproxy_queue_wait_seconds"),
                (f"max(cacheproxy_batch_window_seconds{{{_JOB}}})", "window"),
            ],
            unit="s",
        ),
        Panel("One inference", _both_quantiles("cacheproxy_inference_duration_seconds"), unit="s"),
        Panel(
            "Texts without a vector",
            [(f"sum by (reason) (rate(cacheproxy_inference_errors_total{_RATE}))", "{{reason}}")],
        ),
        Panel(
            "Texts cut at the longest length",
            [(f"sum(rate(cacheproxy_truncated_texts_total{_RATE}))", "truncated")],
        ),
    ],
    "Store": [
        Panel(
            "Breakers",
            [
                (
                    f"max by (instance, op) (cacheproxy_store_breaker_state{{{_JOB}}})",
                    "{{instance}} {{op}}",
                )
            ],
            kind="state-timeline",
            width=12,
            names=_BREAKER,
        ),
        Panel(
            "Calls, p99",
            [(_quantile(0.99, "cacheproxy_store_op_duration_seconds", "op"), "{{op}}")],
            unit="s",
            width=6,
        ),
        Panel(
            "Failed calls, skipped lookups",
            [
                (f"sum by (kind) (rate(cacheproxy_store_errors_total{_RATE}))", "{{kind}}"),
                (f"sum by (op) (rate(cacheproxy_store_skipped_total{_RATE}))", "skipped {{op}}"),
            ],
            width=6,
        ),
        Panel(
            "Entries",
            [
                (f"max(cacheproxy_store_entries{{{_JOB}}})", "in the store"),
                (f"sum(cacheproxy_hot_entries{{{_JOB}}})", "in hot tiers"),
                (f"max(cacheproxy_semantic_index_documents{{{_JOB}}})", "found by probe"),
            ],
        ),
        Panel(
            "Bytes",
            [
                (f"max(cacheproxy_store_bytes{{{_JOB}}})", "store"),
                (f"sum(cacheproxy_hot_bytes{{{_JOB}}})", "hot tiers"),
                (f"max(cacheproxy_semantic_index_bytes{{{_JOB}}})", "index"),
            ],
            unit="bytes",
        ),
        Panel(
            "Write-back",
            [
                (f"sum(cacheproxy_writeback_queue_entries{{{_JOB}}})", "waiting"),
                (f"sum(rate(cacheproxy_writeback_stored_total{_RATE}))", "stored/s"),
                (
                    f"sum by (reason) (rate(cacheproxy_writeback_dropped_total{_RATE}))",
                    "dropped/s: {{reason}}",
                ),
            ],
        ),
    ],
    "Chat and upstreams": [
        Panel(
            "Upstream answers by code",
            [
                (
                    f"sum by (upstream, code) (rate(cacheproxy_upstream_responses_total{_RATE}))",
                    "{{upstream}} {{code}}",
                ),
                (
                    f"sum by (upstream, kind) (rate(cacheproxy_upstream_errors_total{_RATE}))",
                    "{{upstream}} {{kind}}",
                ),
            ],
            unit="reqps",
        ),
        Panel(
            "Upstream, to the first byte",
            _both_quantiles("cacheproxy_upstream_first_byte_seconds", "upstream"),
            unit="s",
        ),
        Panel(
            "Upstreams' breakers",
            [
                (
                    f"max by (instance, upstream) (cacheproxy_upstream_breaker_state{{{_JOB}}})",
                    "{{instance}} {{upstream}}",
                )
            ],
            kind="state-timeline",
            names=_BREAKER,
        ),
        Panel(
            "Tokens saved",
            [(f"sum by (kind) (rate(cacheproxy_saved_tokens_total{_RATE}))", "{{kind}}")],
            text="Of completions that hits saved, a second.",
        ),
        Panel(
            "Upstream time saved",
            [(f"sum by (model) (rate(cacheproxy_saved_seconds_total{_RATE}))", "{{model}}")],
            unit="none",
            text="Seconds of upstreams in a second: calls at the same time.",
        ),
        Panel(
            "Money saved, an hour",
            [(f"3600 * sum by (model) (rate(cacheproxy_saved_cost_total{_RATE}))", "{{model}}")],
            text="By the table of prices.",
        ),
        Panel(
            "Waiting for upstreams",
            [(f"sum(cacheproxy_chat_waiting{{{_JOB}}})", "requests")],
        ),
        Panel(
            "Hits that clients called wrong",
            [(f"sum by (model) (increase(cacheproxy_cache_reports_total{_RATE}))", "{{model}}")],
        ),
        Panel(
            "Served after their time",
            [(f"sum by (reason) (rate(cacheproxy_stale_served_total{_RATE}))", "{{reason}}")],
        ),
    ],
    "Processes": [
        Panel(
            "Memory",
            [(f"process_resident_memory_bytes{{{_JOB}}}", "{{instance}}")],
            unit="bytes",
        ),
        Panel("Cores", [(f"rate(process_cpu_seconds_total{_RATE})", "{{instance}}")], unit="none"),
        Panel(
            "Restarts",
            [
                (f"changes(process_start_time_seconds{_RATE})", "{{instance}}"),
                (f"increase(cacheproxy_worker_restarts_total{_RATE})", "workers of {{instance}}"),
            ],
        ),
    ],
}
