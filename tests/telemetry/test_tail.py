"""The tail of requests is a bounded sample in which failures are not drowned."""

import pytest

from cacheproxy.telemetry.request_trace import Visit
from cacheproxy.telemetry.tail import Tail


@pytest.fixture
def tail() -> Tail:
    return Tail(worker=7)


def visit(at: float, route: str = "embeddings", status: int = 200) -> Visit:
    one = Visit({})
    one.started, one.route, one.status = at, route, status
    return one


def test_of_many_requests_the_first_of_each_tenth_of_a_second_is_kept(tail):
    for i in range(10_000):
        tail.note(visit(i / 10_000))

    assert 10 <= len(tail.last()) <= 11


def test_a_failure_is_kept_among_any_number_of_others(tail):
    for i in range(100):
        tail.note(visit(i / 1000))
    tail.note(visit(0.0995, status=503))

    assert [one.status for one in tail.last()] == [200, 503]


def test_a_thousand_failures_a_second_leave_room_for_what_succeeds(tail):
    for i in range(1000):
        tail.note(visit(i / 1000, status=429))
        tail.note(visit(i / 1000 + 0.0001))

    statuses = [one.status for one in tail.last()]
    assert statuses.count(200) >= 9
    assert statuses.count(429) >= 9


def test_the_sample_is_bounded_and_probes_are_left_out(tail):
    for i in range(1000):
        tail.note(visit(float(i)))
        tail.note(visit(i + 0.5, route="/healthz"))

    kept = tail.last()
    assert len(kept) == 100
    assert {one.route for one in kept} == {"embeddings"}
    assert {one.worker for one in kept} == {7}
