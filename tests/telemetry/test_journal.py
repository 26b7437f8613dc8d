"""Which requests get a line in the log."""

import logging

import pytest

from cacheproxy.telemetry.journal import Journal


@pytest.fixture
def told(caplog):
    """Return a function that closes visits, and gives the fields of the lines that they made."""
    caplog.set_level(logging.INFO)

    def told(requests: str, *visits: tuple[str, int, float]) -> list[dict]:
        journal = Journal(requests)
        for route, status, started in visits:
            visit = journal.open({}, is_traced=False)
            visit.route, visit.status, visit.started = route, status, started
            journal.close(visit)
        return [record.fields for record in caplog.records]

    return told


def test_all_requests_have_a_line_where_that_is_asked_for(told):
    lines = told("all", *[("chat", 200, 1.0)] * 5, ("/healthz", 200, 1.0))
    assert [line["route"] for line in lines] == ["chat"] * 5 + ["/healthz"]


def test_none_has_where_none_is_asked_for(told):
    assert told("off", ("chat", 500, 1.0)) == []


def test_of_a_sample_each_kind_has_one_a_second_which_says_how_many_it_stands_for(told):
    lines = told(
        "sampled",
        *[("chat", 200, 10.0 + n / 100) for n in range(50)],
        ("chat", 429, 10.5),
        ("embed", 200, 10.6),
        ("chat", 200, 11.1),
        ("chat", 200, 11.2),
    )
    kinds = [(line["route"], line["status"], line.get("unlogged", 0)) for line in lines]
    assert kinds == [("chat", 200, 0), ("chat", 429, 0), ("embed", 200, 0), ("chat", 200, 49)]


def test_a_sampled_log_contains_probes_and_scrapes_only_if_they_fail(told):
    visits = [("/readyz", 200, 1.0), ("/metrics", 200, 2.0), ("/readyz", 503, 3.0)]
    assert [(line["route"], line["status"]) for line in told("sampled", *visits)] == [
        ("/readyz", 503)
    ]


def test_nothing_is_put_together_for_a_log_that_drops_it(told, caplog):
    caplog.set_level(logging.WARNING)
    assert told("all", ("chat", 200, 1.0)) == []
