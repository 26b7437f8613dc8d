"""The pages: what their first screen says, and that they need nothing but themselves."""

import json
import re

import msgspec
import pytest
from load_results import phase_of, result_of

from loadtest.results.comparison import as_comparison
from loadtest.results.curve import find_bends, points_of, sustained
from loadtest.results.report import as_html
from loadtest.results.result import Kept, Limit, Trial

RISING = [("a", 10, 5), ("b", 20, 5.5), ("c", 40, 6), ("d", 60, 80), ("e", 80, 200)]


def plots_in(page: str) -> list[dict]:
    (data,) = re.findall(r'<script type="application/json" id="plots">(.*?)</script>', page)
    return json.loads(data)


def tiles_in(page: str) -> dict[str, str]:
    return dict(re.findall(r"<h2>([^<]*)</h2><b>([^<]*)</b>", page))


def test_the_first_screen_says_what_was_offered_and_sustained_and_where_it_bends():
    phases = [phase_of(*one) for one in RISING]
    overloaded = phase_of("f", 100, 300, refused_share=0.5)
    kept = Kept("a: p99_ms at most 9", 5, 9, True, "a", "", "p99_ms")
    broken = Kept("e: p99_ms at most 9", 200, 9, False, "e", "", "p99_ms")

    page = as_html(result_of(*phases, overloaded, promises=[kept, broken]))

    tiles = tiles_in(page)
    assert tiles["Offered"] == "10 to 100/s"
    assert tiles["Sustained"] == "79/s"  # the last answer comes 0.2 s after the last request
    assert tiles["Bends"] == "40 to 60/s"
    assert tiles["Promises"] == "1 broken"
    assert tiles["Checks"] == "no warning"
    assert "<tr class=broken><td>e</td>" in page
    assert "<tr class=broken><td>a</td>" not in page


def test_the_curve_shows_every_phase_and_marks_broken_promises():
    broken = Kept("e: p99_ms at most 9", 200, 9, False, "e", "", "p99_ms")
    result = result_of(*(phase_of(*one) for one in reversed(RISING)), promises=[broken])

    curve = plots_in(as_html(result))[0]

    assert curve["x"] == [10, 20, 40, 60, 80]
    lines = {line["label"]: line["values"] for line in curve["lines"]}
    assert lines["questions, P99"] == pytest.approx([5, 5.5, 6, 80, 200], rel=0.02)
    assert lines["promise broken"][:4] == [None] * 4
    assert lines["promise broken"][4] == pytest.approx(200, rel=0.02)


@pytest.mark.parametrize(
    "phases",
    [
        [("a", 10, 5), ("b", 20, 9), ("c", 40, 9.5)],  # less than twice
        [("a", 40, 5), ("b", 42, 500)],  # the same rate: another cause
        [("a", 10, 500), ("b", 20, 5)],  # falls
    ],
)
def test_a_curve_that_does_not_bend_with_the_rate_has_no_bend(phases):
    assert find_bends(points_of(result_of(*(phase_of(*one) for one in phases)))) == []


def test_a_closed_loop_is_sustained_but_no_point_of_the_curve():
    open_loop, closed = phase_of("a", 10, 5), phase_of("b", 100, 5)
    waiting = msgspec.structs.replace(closed.streams[0], clients=4)
    closed = msgspec.structs.replace(closed, streams=[waiting])

    page = as_html(result_of(open_loop, closed))

    assert plots_in(page)[0]["x"] == [10]
    assert tiles_in(page)["Sustained"] == "100/s"
    assert "in b, 4 clients that wait" in page


def test_a_rate_that_was_mostly_refused_is_not_sustained():
    assert sustained(result_of(phase_of("a", 10, 5, refused_share=0.02))) is None


def test_a_limit_takes_the_place_of_what_was_sustained():
    trials = [Trial("a", 10, []), Trial("d", 60, ["questions: p99_ms 80"])]
    limit = Limit(55.0, 50.0, 60.0, 0.1, trials)

    page = as_html(result_of(phase_of("a", 10, 5), phase_of("d", 60, 80), limit=limit))

    tiles = tiles_in(page)
    assert tiles["Limit"] == "55/s"
    assert "Sustained" not in tiles
    assert "95 % interval 50 to 60/s, 2 trials" in page
    assert "<tr class=broken><td>d</td>" in page


@pytest.mark.parametrize("kind", ["report", "comparison"])
def test_a_page_needs_no_network_and_quotes_names(kind):
    one = result_of(phase_of("</script><b>odd</b>", 10, 5))

    page = as_html(one) if kind == "report" else as_comparison(one, one)

    assert "<b>odd" not in page
    assert not re.search(r"""(src|href)=(?!["']?data:)|@import|url\(""", page)
    assert all(len(line["values"]) == len(plot["x"]) for plot in plots_in(page)
               for line in plot["lines"])  # fmt: skip
    assert len(page.encode()) < 150_000


def test_two_runs_are_drawn_over_each_other():
    a = result_of(*(phase_of(*one) for one in RISING))
    b = result_of(*(phase_of(name, per_s, 2 * ms) for name, per_s, ms in RISING[:3]))

    page = as_comparison(a, b)

    curve, latency, *_ = plots_in(page)
    assert [line["label"] for line in curve["lines"]] == [
        f"{run}: questions, {share}" for run in "AB" for share in ("P99", "P50")
    ]
    assert [line["label"] for line in latency["lines"]] == ["A, p50", "A, p99", "B, p50", "B, p99"]
    assert tiles_in(page)["p50 ms, B / A"] == "2"
    assert "higher in 3" in page
