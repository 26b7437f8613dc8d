"""A tenant's own limits: rates that may be exceeded for moments, and requests at the same time."""

import pytest

from cacheproxy.errors import Overloaded
from cacheproxy.fairness.meters import Limits, Meter, Meters, NamespaceLimits, NamespaceMeter
from cacheproxy.keys import Namespace, tenant_id


def refused(call, *arguments) -> Overloaded:
    with pytest.raises(Overloaded) as raised:
        call(*arguments)
    assert (raised.value.status, raised.value.code) == (429, "rate_limit_exceeded")
    return raised.value


def test_requests_pass_at_the_rate_after_a_burst_of_a_tenth_of_a_minute():
    meter = Meter(Limits(requests_per_minute=60))
    for _ in range(6):
        meter.request(100.0)

    assert refused(meter.request, 100.0).retry_after_s == 1
    meter.request(101.0)
    refused(meter.request, 101.5)


def test_a_refused_request_costs_nothing():
    meter = Meter(Limits(requests_per_minute=60))
    for _ in range(6):
        meter.request(0.0)
    for _ in range(1_000):
        refused(meter.request, 0.0)

    meter.request(1.0)


def test_tokens_that_were_used_are_a_debt_that_later_requests_wait_for():
    meter = Meter(Limits(tokens_per_minute=6_000))
    meter.request(0.0)
    meter.used(1_600)

    assert refused(meter.request, 0.0).retry_after_s == 11
    meter.request(10.1)


def test_a_batch_larger_than_the_burst_passes_when_the_bucket_is_full():
    meter = Meter(Limits(tokens_per_minute=6_000))
    meter.infer(0.0, 5_000)

    refused(meter.infer, 1.0, 10)
    meter.infer(60.0, 5_000)


def test_requests_at_the_same_time_are_bounded():
    meter = Meter(Limits(in_flight=2))
    meter.enter()
    meter.enter()
    refused(meter.enter)
    meter.leave()
    meter.enter()


def test_a_tenant_without_limits_has_no_meter():
    meters = Meters({"a": Limits(), "b": Limits(in_flight=1)})

    assert meters.of("a") is None
    assert meters.of("c") is None
    assert meters.of("b") is not None


def test_refusals_in_a_row_are_held_back_longer_and_longer_up_to_a_second():
    meter = Meter(Limits(requests_per_minute=60))
    for _ in range(6):
        meter.request(0.0)

    delays = [refused(meter.request, 0.0).delay_s for _ in range(300)]
    assert delays[0] == 0
    assert delays == sorted(delays)
    assert delays[-1] == 1

    meter.request(1.0)
    assert refused(meter.request, 1.0).delay_s == 0


def test_a_request_of_a_namespace_needs_room_in_its_tenant_s_account_too():
    tenant = Meter(Limits(requests_per_minute=60))
    one, two = (NamespaceMeter(Limits(requests_per_minute=40), tenant) for _ in range(2))
    for _ in range(4):
        one.request(0.0)
    assert "namespace" in str(refused(one.request, 0.0))
    two.request(0.0)
    two.request(0.0)
    assert "tenant" in str(refused(two.request, 0.0))


def test_what_the_tenant_refuses_costs_its_namespace_nothing():
    tenant = Meter(Limits(requests_per_minute=60, tokens_per_minute=600, in_flight=1))
    namespace = NamespaceMeter(Limits(60, 600, in_flight=1), tenant)
    for _ in range(6):
        tenant.request(0.0)
    for _ in range(100):
        refused(namespace.request, 0.0)
    tenant.infer(0.0, 60)
    refused(namespace.infer, 0.0, 60)
    tenant.enter()
    refused(namespace.enter)
    tenant.leave()

    for _ in range(6):
        namespace.request(6.0)
    namespace.infer(6.0, 60)
    namespace.enter()
    refused(tenant.enter)
    namespace.leave()
    tenant.enter()


def test_tokens_that_a_namespace_used_are_its_tenant_s_debt():
    tenant = Meter(Limits(tokens_per_minute=6_000))
    namespace = NamespaceMeter(Limits(), tenant)
    namespace.request(0.0)
    namespace.used(1_600)

    refused(tenant.request, 0.0)


def test_namespaces_without_limits_of_their_own_have_one_meter_however_many_they_are():
    named, other = Namespace("acme", "named"), Namespace("acme", "other")
    limits = NamespaceLimits({named.id: Limits(in_flight=1)}, Limits(in_flight=2))
    meters = Meters({}, namespaces={tenant_id("acme"): limits})

    assert meters.of(named.id) is not meters.of(other.id)
    assert meters.of(other.id) is meters.of(Namespace("acme", "another").id)
    assert meters.of(Namespace("zeta", "named").id) is None


def test_where_only_some_namespaces_are_limited_the_others_have_their_tenant_s_meter():
    named, other = Namespace("acme", "named"), Namespace("acme", "other")
    limits = NamespaceLimits({named.id: Limits(in_flight=1)})
    owner = tenant_id("acme")
    meters = Meters({owner: Limits(in_flight=9)}, namespaces={owner: limits})
    meters.of(named.id).enter()

    refused(meters.of(named.id).enter)
    meters.of(other.id).enter()
