"""Ids of requests: what is passed on, and what is not believed."""

import pytest

from cacheproxy.telemetry.request_trace import Visit

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"


def passed_on(traceparent: str, tracestate: str = "") -> dict[str, str]:
    headers = {b"traceparent": traceparent.encode(), b"tracestate": tracestate.encode()}
    return Visit(headers).passed_on()


def test_a_trace_is_passed_on_as_it_came():
    given = passed_on(f"00-{TRACE}-{PARENT}-01", "vendor=1,other=2")
    assert given["traceparent"] == f"00-{TRACE}-{PARENT}-01"
    assert given["tracestate"] == "vendor=1,other=2"


def test_of_a_later_version_what_is_known_is_passed_on():
    given = passed_on(f"01-{TRACE}-{PARENT}-01-more")
    assert given["traceparent"] == f"00-{TRACE}-{PARENT}-01"


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        "00",
        f"00-{TRACE}-{PARENT}",
        f"00-{TRACE.upper()}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-01-more",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{PARENT}-01\n",
    ],
)
def test_what_is_no_trace_is_not_passed_on(traceparent):
    assert passed_on(traceparent, "vendor=1").keys() == {"x-request-id"}


def test_a_state_that_is_none_is_left_out():
    assert "tracestate" not in passed_on(f"00-{TRACE}-{PARENT}-01", "x" * 513)
