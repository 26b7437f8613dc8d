"""The samples that the built-in page draws."""

import json
import re
from urllib.parse import urlencode

from starlette.requests import Request

from cacheproxy.api.service import metrics_endpoint
from cacheproxy.telemetry.history import History, OwnMetrics, read_figures
from cacheproxy.telemetry.merged import merge, take_snapshot
from cacheproxy.telemetry.metrics import LATENCY_BUCKETS, Metrics


def some_metrics() -> Metrics:
    metrics = Metrics()
    metrics.requests.labels("embeddings", "m", "200").inc(3)
    metrics.requests.labels("chat", "m", "500").inc()
    for result, count in (("hit", 6), ("miss", 4)):
        metrics.lookups.labels("m", "hot", result).inc(count)
    metrics.lookups.labels("m", "exact", "hit").inc()
    metrics.lookups.labels("chat model", "exact", "hit").inc(100)
    metrics.batch_texts.labels("m").observe(4)
    metrics.inference_duration.labels("m").observe(0.02)
    metrics.request_duration.labels("embeddings", "hot").observe(0.00002)
    metrics.request_duration.labels("embed", "hot").observe(0.3)
    metrics.request_duration.labels("embed", "miss").observe(99)
    metrics.writeback_dropped.labels("purged").inc(5)
    metrics.writeback_dropped.labels("full").inc(2)
    return metrics


def figures_of(*all_metrics: Metrics):
    snapshots = [take_snapshot(metrics.registry, metrics.merges) for metrics in all_metrics]
    return read_figures(merge(snapshots), at=1.0)


def test_figures_are_sums_over_labels():
    figures = figures_of(some_metrics())

    assert figures.requests == {"200": 3, "500": 1}
    assert (figures.texts, figures.hits) == (10, {"hot": 6, "exact": 101})
    assert (figures.inferred, figures.inference_s) == (4, 0.02)
    assert figures.dropped == 2  # what was purged is not missed


def test_a_hit_spares_what_its_own_models_texts_take():
    assert figures_of(some_metrics()).spared_s == round(7 * 0.02 / 4, 4)


def test_durations_are_counts_of_each_bucket():
    durations = figures_of(some_metrics()).durations

    assert len(durations["hot"]) == len(LATENCY_BUCKETS) + 1
    assert durations["hot"][0] == 1
    assert durations["hot"][LATENCY_BUCKETS.index(0.5)] == 1
    assert sum(durations["hot"]) == 2
    assert durations["miss"][-1] == 1


def test_those_of_several_workers_add_up():
    one, two = figures_of(some_metrics()), figures_of(some_metrics(), some_metrics())
    assert two.texts == 2 * one.texts
    assert sum(two.durations["hot"]) == 2 * sum(one.durations["hot"])
    assert two.spared_s == 2 * one.spared_s


def test_a_history_returns_only_new_samples_and_drops_the_oldest():
    history = History()
    for at in range(1_000):
        history.add(read_figures([], at=float(at)))

    times = [sample["at"] for sample in json.loads(history.since(0))["samples"]]
    assert times == list(range(700, 1_000))
    assert [sample["at"] for sample in json.loads(history.since(998))["samples"]] == [999]


async def test_series_that_are_asked_for_by_name_are_those_among_all():
    endpoint = metrics_endpoint(OwnMetrics(some_metrics()))

    async def series_of(*names: str) -> list[str]:
        query = urlencode([("name[]", name) for name in names]).encode()
        answer = await endpoint(Request({"type": "http", "query_string": query, "headers": []}))
        lines = answer.body.decode().splitlines()
        return [line for line in lines if not line.startswith("#")]

    by_name: dict[str, list[str]] = {}
    for line in await series_of():
        if not line.startswith("process_"):  # these change from one moment to the next
            by_name.setdefault(re.match(r"\w+", line)[0], []).append(line)
    assert len(by_name) > 40
    assert {name: await series_of(name) for name in by_name} == by_name
    two = ("cacheproxy_requests_total", "cacheproxy_lookups_total")
    assert sorted(await series_of(*two)) == sorted(by_name[two[0]] + by_name[two[1]])
    assert await series_of("cacheproxy_no_such_total") == []
