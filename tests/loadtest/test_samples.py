"""From answers to figures: Cache-Status, histograms, quantiles, promises."""

import msgspec
import numpy as np
import pytest
from hdrh.histogram import HdrHistogram

from loadtest.client.connection import Exchange
from loadtest.client.fleet import Outline
from loadtest.client.pieces import Pieces
from loadtest.client.samples import SAMPLE, pack_sample, read_cache_status, read_samples
from loadtest.results.promises import check_promises
from loadtest.results.result import Result, make_phase
from loadtest.results.summary import as_text, warnings_of
from loadtest.traffic.scenario import Phase, Promise

MISS = b"cacheproxy; fwd=miss; ttl=57; stored"
HOT = b"cacheproxy; hit; ttl=12; detail=hot"


@pytest.mark.parametrize(
    ("header", "tier", "texts"),
    [
        (HOT, "hot", (2, 0, 0, 0)),
        (b"cacheproxy; hit; ttl=1; detail=exact", "exact", (0, 2, 0, 0)),
        (b"cacheproxy; hit; ttl=1; detail=semantic", "semantic", (0, 0, 2, 0)),
        (MISS, "miss", (0, 0, 0, 2)),
        (b"cacheproxy; fwd=request; collapsed", "miss", (0, 0, 0, 2)),
        (b'cacheproxy; fwd=miss; ttl=5; detail="hot=1,miss=1"', "mixed", (1, 0, 0, 1)),
        (b'cacheproxy; hit; detail="hot=1,semantic=1"', "mixed", (1, 0, 1, 0)),
        (b"ExampleCache; hit", "hit", (0, 0, 0, 0)),
        (b"", "none", (0, 0, 0, 0)),
    ],
)
def test_cache_status_tells_the_tier_of_every_text(header, tier, texts):
    found = read_cache_status(header, 2)

    assert (found.tier, found.texts) == (tier, texts)


def sample(due, *, ms, status=200, header=HOT, index=0, retry_after=False, whole=True, lag_ms=0.0):
    exchange = Exchange(0, index, due, b"")
    exchange.sent, exchange.first = due + lag_ms / 1000, due + ms / 2000
    exchange.status, exchange.cache_status = status, header
    exchange.retry_after = retry_after
    return pack_sample(exchange, start=0.0, now=due + ms / 1000, texts=1, whole=whole)


def phase_of(rows, *, kinds=b"\0" * 1000, settle_s=0.0, may_refuse=False):
    outline = Outline("s", "embeddings", 1, len(rows), (len(rows), 0, 0, 0), kinds, True)
    phase = Phase("p", 10, (), settle_s, may_refuse=may_refuse)
    return make_phase(phase, [outline], read_samples(b"".join(rows)), [], [])


EVENTS = (
    b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\r\n\r\n'
    b'data: {"choices":[{"delta":{"reasoning_content": "so"}}]}\n\n'
    b'data: {"choices":[{"delta":{"content":"he said \\"content\\": \\"x\\" twice"}}]}\n\n'
    b'data: {"choices":[{"delta":{"content":"\\"quoted\\""}}]}\n\n'
    b'data: {"choices":[{"delta":{},"finish_reason":"stop"}],"usage":null}\n\n'
)
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":7}}\n\n'


@pytest.mark.parametrize("size", [1, 7, 1_000])
@pytest.mark.parametrize(("body", "tokens"), [(EVENTS, 3), (EVENTS + USAGE, 7)])
def test_tokens_are_told_or_counted_wherever_a_stream_is_cut(body, tokens, size):
    pieces = Pieces()
    for start in range(0, len(body), size):
        pieces.feed(body[start : start + size], now=1.0 + start)

    assert (pieces.count, pieces.tokens) == (3, tokens)
    assert 1.0 <= pieces.first <= pieces.last <= len(EVENTS)


def test_the_time_per_token_is_that_after_the_first():
    rows = np.zeros(10, SAMPLE)
    rows["status"], rows["whole_us"] = 200, 900_000
    rows["first_token_us"], rows["last_token_us"], rows["tokens"] = 100_000, 500_000, 5
    outline = Outline("s", "chat", 1, 10, (10, 0, 0, 0), bytes(10), True)

    figures = make_phase(Phase("p", 10, ()), [outline], rows, [], []).streams[0].figures

    assert figures["first_token_p50_ms"] == 100
    assert figures["per_token_p50_ms"] == 100
    assert figures["tokens_per_s"] == 5


def test_latencies_count_from_the_moment_at_which_a_request_was_to_be_sent():
    found = phase_of([sample(i / 100, ms=1 + i, lag_ms=2) for i in range(100)])

    figures = found.streams[0].figures
    assert figures["p50_ms"] == pytest.approx(51, abs=1.01)
    assert figures["p99_ms"] == pytest.approx(100, abs=1.01)
    assert found.figures["lag_p99_ms"] == pytest.approx(2, rel=0.01)


def test_histograms_hold_every_answer_in_its_window_and_tier():
    rows = [sample(i / 10, ms=5, header=HOT if i % 2 else MISS) for i in range(100)]

    latencies = {one.tier: one.windows for one in phase_of(rows).streams[0].latencies}

    assert set(latencies) == {"hot", "miss"}
    decoded = [HdrHistogram.decode(window) for window in latencies["hot"]]
    assert [one.total_count for one in decoded] == [5] * 10
    assert decoded[0].get_value_at_percentile(50) == pytest.approx(5_000, rel=0.001)


def test_what_settles_counts_in_no_figure():
    slow = [sample(i / 100, ms=500) for i in range(100)]
    rows = slow + [sample(1 + i / 100, ms=1) for i in range(900)]

    assert phase_of(rows).streams[0].figures["p99_ms"] > 400
    settled = phase_of(rows, settle_s=2.0).streams[0].figures
    assert settled["p99_ms"] == pytest.approx(1, abs=0.01)
    assert settled["answered_per_s"] == pytest.approx(100)


def test_refusals_are_told_apart_from_failures_and_from_broken_streams():
    rows = [
        *(sample(i, ms=1) for i in range(5)),
        sample(5, ms=3, status=429, retry_after=True),
        sample(6, ms=3, status=503),
        sample(7, ms=3, status=500),
        sample(8, ms=3, status=0),
        sample(9, ms=3, whole=False),
    ]

    found = phase_of(rows).streams[0]

    assert found.figures["refused_share"] == 0.2
    assert found.figures["failed_share"] == pytest.approx(0.3)
    assert found.figures["refusals_without_retry_after"] == 1
    assert found.statuses == {"0": 1, "1": 1, "200": 5, "429": 1, "500": 1, "503": 1}


def test_kinds_are_told_beside_the_tiers_that_answered_them():
    rows = [sample(i, ms=1, index=i, header=HOT if i < 3 else MISS) for i in range(5)]

    found = phase_of(rows, kinds=bytes([0, 0, 0, 3, 3])).streams[0]

    assert found.kinds == {"repeat": {"hot": 3}, "unseen": {"miss": 2}}


def test_promises_are_kept_or_broken_by_their_figures():
    fast = phase_of([sample(i / 100, ms=1) for i in range(100)])
    slow = phase_of([sample(i / 100, ms=3) for i in range(100)])
    phases = [fast, msgspec.structs.replace(slow, name="slow")]

    kept = check_promises(
        [
            Promise("p", "p99_ms", at_most=1.5),
            Promise("slow", "p99_ms", at_most=2.0, times="p"),
            Promise("slow", "answered_per_s", at_least=0.9, times="p"),
        ],
        phases,
    )

    assert [one.is_kept for one in kept] == [True, False, True]
    assert np.isclose(kept[1].limit, 2 * fast.streams[0].figures["p99_ms"])


@pytest.mark.parametrize(
    ("statuses", "may_refuse", "failures"),
    [
        ([200, 200], False, []),
        ([200, 404, 404], False, ["s: 2 of 3 requests failed: 404 (2)"]),
        ([200, 0, 500], True, ["s: 2 of 3 requests failed: no answer (1), 500 (1)"]),
        ([200, 429, 503], True, []),
        ([200, 429, 503], False, ["s: 2 of 3 requests failed: 429 (1), 503 (1)"]),
    ],
)
def test_every_answer_but_2xx_and_expected_refusals_is_a_failure(statuses, may_refuse, failures):
    rows = [sample(i, ms=1, status=status) for i, status in enumerate(statuses)]

    assert phase_of(rows, settle_s=5, may_refuse=may_refuse).failures == failures


@pytest.mark.parametrize(("lag_ms", "warnings"), [(0.5, 0), (2.0, 1)])
def test_requests_that_leave_late_are_a_warning(lag_ms, warnings):
    phase = phase_of([sample(i / 100, ms=5, lag_ms=lag_ms) for i in range(100)])
    result = Result("s", "about", "server", 0.0, 2, 1, 1, [phase], [])

    assert len(warnings_of(result)) == warnings
    assert ("WARNING p: requests left up to 2.00 ms late" in as_text(result)) == bool(warnings)
