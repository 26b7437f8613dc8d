import random

import pytest

from cacheproxy.keys import Namespace, short_id
from cacheproxy.telemetry.metrics import Metrics
from cacheproxy.telemetry.namespaces.gauges import OTHER, SHOWN
from cacheproxy.thresholds.certified import _NAMESPACES, CertifiedThresholds
from cacheproxy.thresholds.promise import Promise

PROMISE = Promise(max_error=0.05, min_similarities=(0.95,))


@pytest.fixture
def metrics():
    return Metrics()


def make(metrics, **more):
    settings = {"saves_only": False, "draw": random.Random(1).random} | more  # noqa: S311
    return CertifiedThresholds(PROMISE, min_similarity=0.95, model="m", metrics=metrics, **settings)


def standings(controller):
    return {account.namespace_id: account.standings for account in controller.accounts()}


def teach(controller, namespace_id, similarity, count=200):
    for _ in range(count):
        verdict = controller.judge(namespace_id, 0.97, None)
        if verdict.check or not verdict.is_hit:
            controller.observe(namespace_id, 0.97, similarity)


def test_t7_what_one_namespace_learns_moves_no_other(metrics):
    alone, beside = make(metrics), make(Metrics())
    teach(alone, "good", 0.99)
    for _ in range(200):
        teach(beside, "poisoned", 0.10, count=1)
        teach(beside, "good", 0.99, count=1)

    good = standings(alone)["good"]
    assert standings(beside)["good"] == good
    assert good[0].threshold is not None
    assert standings(beside)["poisoned"][0].threshold is None


def test_metrics_say_how_a_namespace_stands(metrics):
    controller = make(metrics)
    labels = {"model": "m", "namespace": short_id("a" * 32)}

    def value(name):
        return metrics.registry.get_sample_value(f"cacheproxy_semantic_{name}", labels)

    teach(controller, "a" * 32, 0.99, count=20)
    assert (value("threshold"), value("certified")) == (2.0, 0)
    assert value("pairs_needed") > 0
    teach(controller, "a" * 32, 0.99)
    assert 0.9 < value("threshold") <= 0.97
    assert value("certified") == 1
    assert value("error_upper_bound") <= 0.05
    assert value("pairs_needed") == 0
    right = {"model": "m", "result": "right"}
    assert metrics.registry.get_sample_value("cacheproxy_semantic_shadow_labels_total", right) > 60


def test_namespaces_without_end_fill_neither_memory_nor_metrics(metrics):
    controller = make(metrics)
    for number in range(_NAMESPACES + 10):
        teach(controller, f"{number:032x}", 0.99, count=10)

    assert len(list(controller.accounts())) == _NAMESPACES
    for family in metrics.registry.collect():
        assert len(family.samples) <= SHOWN + 1, family.name


def test_of_the_namespaces_that_are_not_shown_by_themselves_the_worst_is(metrics):
    controller = make(metrics)
    for number in range(SHOWN + 3):
        teach(controller, f"{number:032x}", 0.99)

    def other(name):
        labels = {"model": "m", "namespace": OTHER}
        return metrics.registry.get_sample_value(f"cacheproxy_semantic_{name}", labels)

    assert (other("certified"), other("pairs_needed")) == (1, 0)
    teach(controller, f"{SHOWN + 1:032x}", 0.10)
    assert (other("certified"), other("threshold")) == (0, 2.0)
    assert other("error_upper_bound") > 0.05


def test_where_lookups_do_not_pay_the_tier_steps_aside(metrics, caplog):
    caplog.set_level("INFO")
    controller = make(metrics, saves_only=True)
    assert controller.is_active("n", 1, is_idle=lambda: True)
    for _ in range(2_000):
        controller.judge("n", 0.5, None)
        controller.observe("n", 0.5, 0.3)
        controller.inferred("n", 0.002, 1)
        controller.looked_up("n", 0.001, 1, 0)

    assert not controller.is_active("n", 1, is_idle=lambda: True)
    assert controller.is_active("other", 1, is_idle=lambda: True)
    assert "steps aside" in caplog.text


def test_a_tenant_s_namespaces_without_end_push_out_no_evidence_of_another(metrics):
    controller = make(metrics)
    quiet = [Namespace("quiet", f"n{number}").id for number in range(3)]
    for namespace_id in quiet:
        teach(controller, namespace_id, 0.99)
    before = {one: standings(controller)[one] for one in quiet}
    for number in range(_NAMESPACES + 100):
        teach(controller, Namespace("hostile", f"n{number}").id, 0.10, count=1)

    assert len(list(controller.accounts())) == _NAMESPACES
    assert {one: standings(controller)[one] for one in quiet} == before
    assert all(before[one][0].threshold is not None for one in quiet)
    shown = [
        metrics.registry.get_sample_value(
            "cacheproxy_semantic_certified", {"model": "m", "namespace": short_id(one)}
        )
        for one in quiet
    ]
    assert shown == [1, 1, 1]
