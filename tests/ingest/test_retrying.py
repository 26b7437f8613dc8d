from datetime import UTC, datetime

import pytest

from cacheproxy.ingest.retrying import Verdict, pause_s, retry_after_s, verdict

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        *((None, None), ("3", 3.0), (" 0 ", 0.0), ("soon", None), ("-1", None), ("²", None)),
        ("Thu, 01 Jan 2026 12:00:30 GMT", 30.0),
        ("Thu, 01 Jan 2026 11:00:00 GMT", 0.0),
        ("999999999", 3_600.0),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date(header, seconds):
    assert retry_after_s(header, NOW) == seconds


def test_pauses_double_up_to_a_bound_and_vary():
    longest = [pause_s(attempt, None, lambda: 1.0) for attempt in range(10)]

    assert longest == [0.5, 1, 2, 4, 8, 16, 30, 30, 30, 30]
    assert pause_s(3, None, lambda: 0.25) == 1.0
    assert pause_s(10_000, None, lambda: 1.0) == 30


def test_retry_after_is_never_shortened():
    assert pause_s(0, 7.0, lambda: 0.0) == 7.0
    assert 7.0 < pause_s(0, 7.0, lambda: 0.9) <= 8.0


@pytest.mark.parametrize(
    ("status", "code", "attempts", "expected"),
    [
        (200, None, 1, Verdict.GOOD),
        *((status, None, 99, Verdict.LATER) for status in (408, 429, 502, 503, 504)),
        *((status, None, 1, Verdict.SPLIT) for status in (400, 413, 422)),
        (500, None, 1, Verdict.LATER),
        (500, None, 5, Verdict.SPLIT),
        (500, "inference_failed", 1, Verdict.SPLIT),
        *((status, None, 1, Verdict.FATAL) for status in (401, 403, 404, 301)),
    ],
)
def test_an_answer_says_whether_to_wait_split_or_stop(status, code, attempts, expected):
    assert verdict(status, code, attempts) is expected
