"""A tenant's own limits: rates that may be exceeded for moments, and requests at the same time."""

import pytest

from cacheproxy.errors import Overloaded
from cacheproxy.fairness.meters import Limits, Meter, Meters


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
