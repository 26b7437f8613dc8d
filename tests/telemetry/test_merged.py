import asyncio
import math

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest

from cacheproxy.concurrency import parts
from cacheproxy.telemetry.loop_counters import LoopHistogram
from cacheproxy.telemetry.merged import (
    GENERATE,
    expose,
    lasting,
    merge,
    render,
    take_snapshot,
    take_snapshot_in_turns,
)
from cacheproxy.telemetry.metrics import Metrics
from cacheproxy.telemetry.supervisor_metrics import SupervisorMetrics


def registry_with(asked: int, depth: float, waits: tuple[float, ...] = ()) -> CollectorRegistry:
    registry = CollectorRegistry()
    Counter("asked", "Asked", ["route"], registry=registry).labels("a").inc(asked)
    Gauge("depth", "Depth", registry=registry).set(depth)
    histogram = Histogram("wait_seconds", "Wait", registry=registry, buckets=(1, 2))
    for wait in waits:
        histogram.observe(wait)
    Info("build", "Build", registry=registry).info({"version": "1"})
    return registry


def values_of(families) -> dict[str, float]:
    return {
        sample.name + "".join(sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
    }


def test_one_snapshot_is_rendered_as_prometheus_client_renders_its_registry():
    metrics = Metrics()
    metrics.requests.labels("embeddings", 'a "model"', "200").inc()
    metrics.request_duration.labels("embeddings", "hot").observe(0.2)
    metrics.store_entries.set(math.nan)
    metrics.build_info.info({"version": "1"})

    snapshot = take_snapshot(metrics.registry, metrics.merges)

    text = render(merge([snapshot])).decode()
    expected = generate_latest(metrics.registry).decode()
    ours, theirs = (
        [line for line in one.splitlines() if not line.startswith("process_")]
        for one in (text, expected)
    )
    assert ours == theirs


@pytest.mark.parametrize("text_format", GENERATE)
async def test_a_histogram_of_many_series_comes_in_parts_and_is_told_as_one(text_format):
    registry = CollectorRegistry()
    histogram = LoopHistogram("duration", "of it", ["route"], (0.5, 1.0), registry)
    for number in range(9):
        histogram.labels(f"route {number}").observe(number / 8)
    Gauge("depth", "of another", registry=registry)

    text = (await expose(registry, text_format)).decode()
    taken = take_snapshot(registry, {"depth": "sum"})

    assert len([*histogram.collect()]) == 3
    assert text.count("# TYPE duration ") == text.count("# HELP duration ") == 1
    assert [line for line in text.splitlines() if line.startswith("duration_count")] == [
        f'duration_count{{route="route {number}"}} 1.0' for number in range(9)
    ]
    assert [family.name for family in taken] == ["duration", "depth"]
    assert text == render(taken, text_format).decode()


@pytest.mark.parametrize("text_format", GENERATE)
async def test_what_is_exposed_in_turns_is_the_same_as_at_once(text_format, monkeypatch):
    monkeypatch.setattr(parts, "_TURN_S", 0.0)
    registry = registry_with(3, 0, (0.5, 1.5))
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    text = await expose(registry, text_format)
    taken = await take_snapshot_in_turns(registry, {"depth": "sum"})
    task.cancel()

    # Of a counter the time at which it was made is told, too: the same in both.
    assert text == GENERATE[text_format](registry)
    assert taken == take_snapshot(registry, {"depth": "sum"})
    assert turns >= 2 * len(taken)


def test_counters_and_histograms_are_summed():
    one = take_snapshot(registry_with(3, 0, (0.5, 1.5)), {"depth": "sum"})
    other = take_snapshot(registry_with(4, 0, (0.5, 9)), {"depth": "sum"})

    values = values_of(merge([one, other]))

    assert values["asked_totala"] == 7
    assert [values["wait_seconds_bucket" + le] for le in ("1.0", "2.0", "+Inf")] == [2, 3, 4]
    assert values["wait_seconds_count"] == 4
    assert values["wait_seconds_sum"] == 11.5
    assert values["build_info1"] == 1


@pytest.mark.parametrize(("rule", "merged"), [("sum", 7), ("max", 5), ("min", 2)])
def test_gauges_are_merged_by_their_rule_and_what_is_no_number_gives_way(rule, merged):
    snapshots = [
        take_snapshot(registry_with(0, depth), {"depth": rule}) for depth in (math.nan, 2, 5)
    ]

    assert values_of(merge(snapshots))["depth"] == merged
    assert values_of(merge(reversed(snapshots)))["depth"] == merged
    assert math.isnan(values_of(merge(snapshots[:1]))["depth"])


def test_series_that_only_one_process_has_are_kept_beside_those_of_their_metric():
    one, other = registry_with(1, 0), registry_with(1, 0)
    Counter("late", "Late", registry=other).inc()

    merged = merge([take_snapshot(r, {"depth": "sum"}) for r in (one, other)])

    assert [family.name for family in merged] == ["asked", "depth", "wait_seconds", "build", "late"]
    assert values_of(merged)["late_total"] == 1


def test_of_a_process_that_has_ended_what_it_counted_lasts_and_what_it_held_does_not():
    ended = take_snapshot(registry_with(3, 5, (0.5,)), {"depth": "sum"})

    values = values_of(lasting(ended))

    assert values["asked_totala"] == 3
    assert values["wait_seconds_count"] == 1
    assert "depth" not in values


@pytest.mark.parametrize("metrics", [Metrics(), SupervisorMetrics()])
def test_every_gauge_that_is_exported_says_how_it_is_merged(metrics):
    take_snapshot(metrics.registry, metrics.merges)


def test_a_gauge_that_does_not_say_how_it_is_merged_is_refused():
    metrics = Metrics()
    Gauge("cacheproxy_new", "New", registry=metrics.registry)

    with pytest.raises(KeyError, match="cacheproxy_new"):
        take_snapshot(metrics.registry, metrics.merges)


def test_the_latest_example_of_a_bucket_is_shown_in_openmetrics_alone():
    snapshots = []
    for trace in ("a" * 32, "b" * 32):
        metrics = Metrics()
        metrics.request_duration.labels("embeddings", "hot").observe(0.2, trace)
        metrics.request_duration.labels("embeddings", "hot").observe(0.2)
        snapshots.append(take_snapshot(metrics.registry, metrics.merges))

    merged = merge(reversed(snapshots))

    text = render(merged, "openmetrics").decode()
    (bucket,) = [line for line in text.splitlines() if " # " in line]
    assert bucket.startswith('cacheproxy_request_duration_seconds_bucket{le="0.25"')
    assert bucket.partition(" # ")[0].endswith(" 4.0")
    assert f'# {{trace_id="{"b" * 32}"}} 0.2 ' in bucket
    assert " # {" not in render(merged).decode()
