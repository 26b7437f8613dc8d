from prometheus_client import CollectorRegistry

from cacheproxy.keys import Namespace, short_id
from cacheproxy.telemetry.namespaces.gauges import (
    OTHER,
    SHOWN,
    NamespaceGauge,
    NamespaceGauges,
)
from cacheproxy.telemetry.namespaces.traffic import BusiestNamespaces, NamespaceTallies


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def answered(**namespaces: int):
    tallies = NamespaceTallies()
    for name, count in namespaces.items():
        tally = tallies.of("model", Namespace("t", name).id)
        tally.answers["hot"] += count
        tally.saved_tokens += 10 * count
    return tallies.drain()


def label(name: str) -> str:
    return short_id(Namespace("t", name).id)


def shown(busiest: BusiestNamespaces, metric: str = "answers") -> dict[str, float]:
    return {
        sample.labels["namespace"]: sample.value
        for family in busiest.collect()
        for sample in family.samples
        if family.name == f"cacheproxy_namespace_{metric}"
        and sample.labels.get("outcome", "hot") == "hot"
    }


def test_the_busiest_have_series_and_the_rest_are_other():
    busiest = BusiestNamespaces(CollectorRegistry())
    busiest.shown = 2

    busiest.add(answered(a=5, b=9, c=1, d=7))
    busiest.add(answered(a=5, b=1))

    assert shown(busiest) == {label("b"): 10, label("d"): 7, OTHER: 11}
    assert shown(busiest, "saved_tokens")[OTHER] == 110


def test_one_that_has_become_far_busier_takes_a_series_and_no_count_shrinks():
    clock = Clock()
    busiest = BusiestNamespaces(CollectorRegistry(), clock)
    busiest.shown = 1
    busiest.add(answered(a=10))
    busiest.add(answered(b=15))
    assert shown(busiest) == {label("a"): 10, OTHER: 15}

    clock.now = 61
    busiest.add(answered(b=15))

    assert shown(busiest) == {label("b"): 15, OTHER: 15}


def test_however_many_namespaces_there_are_series_stay_bounded():
    busiest = BusiestNamespaces(CollectorRegistry())
    busiest.shown = 3

    busiest.add(answered(**{f"n{i}": 1 for i in range(10_000)}))

    found = shown(busiest)
    assert len(found) == 4
    assert sum(found.values()) == 10_000


def test_with_none_shown_there_are_no_series():
    busiest = BusiestNamespaces(CollectorRegistry())
    busiest.add(answered(a=1))

    assert shown(busiest) == {}


def evidence_of(gauges: NamespaceGauges) -> dict[str, float]:
    (family,) = gauges.collect()
    return {sample.labels["namespace"]: sample.value for sample in family.samples}


def test_evidence_is_told_of_the_busiest_namespaces_however_late_they_came():
    clock = Clock()
    tallies = NamespaceTallies(clock)
    gauge = NamespaceGauge("evidence", "of a namespace", "min")
    gauges = NamespaceGauges([gauge], CollectorRegistry(), tallies.busyness)

    def traffic(count: int, *numbers: int) -> None:
        for number in numbers:
            namespace_id = Namespace("t", f"n{number}").id
            tallies.of("model", namespace_id).answers["miss"] += count
            gauges.set("model", namespace_id, {"evidence": number})
        tallies.drain()

    traffic(1, *range(SHOWN + 10))
    assert label(f"n{SHOWN}") not in evidence_of(gauges)
    traffic(2, SHOWN)  # three answers against one: busier than twice
    late = evidence_of(gauges)
    assert late[label(f"n{SHOWN}")] == SHOWN
    assert len(late) == SHOWN + 1

    # One that is hardly busier does not push another out, back and forth.
    before = set(late)
    traffic(1, SHOWN + 1)
    assert set(evidence_of(gauges)) == before
    # What was busy long ago counts less and less.
    for _ in range(4):
        clock.now += 61
        tallies.drain()
    traffic(2, SHOWN + 1)
    assert label(f"n{SHOWN + 1}") in evidence_of(gauges)


def test_a_tenant_with_busy_namespaces_hides_no_other_tenant():
    tallies = NamespaceTallies()
    gauge = NamespaceGauge("evidence", "of a namespace", "min")
    gauges = NamespaceGauges([gauge], CollectorRegistry(), tallies.busyness)
    for number in range(2 * SHOWN):
        namespace_id = Namespace("busy", f"n{number}").id
        tallies.of("model", namespace_id).answers["miss"] += 100
        gauges.set("model", namespace_id, {"evidence": 1})
    quiet = Namespace("quiet", "only").id
    gauges.set("model", quiet, {"evidence": 0})
    tallies.drain()

    assert short_id(quiet) in evidence_of(gauges)
