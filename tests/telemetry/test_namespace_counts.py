"""Namespaces share a bound on their series: no tenant takes them all, and no count is lost."""

from prometheus_client import CollectorRegistry

from cacheproxy.admin.namespaces import NAMES, read_namespaces
from cacheproxy.keys import Namespace, hex_id, short_id
from cacheproxy.telemetry.lookup_counts import LookupCounts
from cacheproxy.telemetry.merged import merge, only, take_snapshot
from cacheproxy.telemetry.metrics import Metrics
from cacheproxy.telemetry.namespace_counts import SHOWN, NamespaceCounts


def count(namespaces: NamespaceCounts, *ids: str) -> None:
    for namespace_id in ids:
        namespaces.of_model("m").of(namespace_id).hot += 1


def series(registry: CollectorRegistry) -> dict[str, float]:
    return {
        sample.labels["namespace"]: sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == "cacheproxy_namespace_lookups_total"
    }


def test_a_tenant_with_many_namespaces_leaves_room_for_others():
    registry = CollectorRegistry()
    namespaces = NamespaceCounts(registry)
    greedy = [Namespace("greedy", str(i)).id for i in range(3 * SHOWN)]
    modest = [Namespace(f"tenant-{i}", "default").id for i in range(5)]

    count(namespaces, *greedy, *modest, *greedy)

    shown = series(registry)
    assert {short_id(one) for one in modest} <= shown.keys()
    assert len(shown) == SHOWN // 2 + len(modest) + 1
    assert shown["other"] == 2 * (3 * SHOWN - SHOWN // 2)
    assert sum(shown.values()) == 6 * SHOWN + len(modest)


def test_there_are_never_more_series_than_the_bound_and_none_is_given_up():
    registry = CollectorRegistry()
    namespaces = NamespaceCounts(registry)
    before: set[str] = set()
    for i in range(4 * SHOWN):
        count(namespaces, Namespace(f"tenant-{i}", "default").id)
        now = series(registry).keys()
        assert before <= now
        before = set(now)
    assert len(before) == SHOWN + 1


def test_the_figures_are_the_sums_of_all_workers_and_add_up_to_the_lookups():
    ours, theirs = Namespace("acme", "default").id, Namespace("umbrella", "default").id
    snapshots = []
    for _ in range(2):
        metrics = Metrics()
        counts = LookupCounts(metrics, "m")
        counts.hot_hit(ours)
        counts.count(ours, "hot", misses=4)
        counts.count(ours, "exact", hits=3, misses=1)
        counts.count(theirs, "hot", hits=2)
        metrics.batch_texts.labels("m").observe(4)
        metrics.inference_duration.labels("m").observe(0.8)
        snapshots.append(take_snapshot(metrics.registry, metrics.merges))

    told = read_namespaces(only(merge(snapshots), NAMES), {hex_id(ours): ("acme", "default")})

    assert [(one.tenant, one.lookups, one.hits) for one in told] == [
        ("acme", 10, {"hot": 2, "exact": 6, "semantic": 0}),
        (None, 4, {"hot": 4, "exact": 0, "semantic": 0}),
    ]
    assert [one.spared_s for one in told] == [1.6, 0.8]
