"""How `bench speed` compares what it measured, and says whether the goal is met."""

import click
import pytest
from click.testing import CliRunner

from loadtest.bench.offline.contenders import BASELINE, DYNAMIC, OURS
from loadtest.bench.offline.engine_report import Round
from loadtest.bench.speed import Row, Table, add_engine
from loadtest.bench.wrk import WrkResult


def test_a_ratio_is_taken_within_a_round_and_its_median_decides():
    row = Row("hits", "/s", "bare", 0.75, at_least=True)
    for ours, bare in ((80.0, 100.0), (10.0, 20.0), (160.0, 200.0)):
        row.add(ours, bare)

    assert row.compared == [0.8, 0.5, 0.8]
    assert row.cells()[3:] == ["0.80x (0.50x to 0.80x)", "at least 0.75x", "yes"]


def test_a_difference_keeps_its_unit():
    row = Row("idle", "ms", "bare", 1.0, is_difference=True)
    row.add(4.5, 3.0)

    assert row.cells()[3:] == ["1.5 ms (1.5 ms to 1.5 ms)", "at most 1 ms", "no"]


def test_what_is_compared_with_nothing_has_its_own_figure_beside_the_goal():
    row = Row("memory", "MB", "", 180.0)
    row.add(162.0)

    assert row.cells()[2:] == ["", "162 MB (162 MB to 162 MB)", "at most 180 MB", "yes"]


@pytest.mark.parametrize("with_http", [True, False])
def test_a_round_of_the_engine_is_compared_with_the_best_of_the_others(with_http):
    found = Round(
        texts_per_s={OURS: 300.0, BASELINE: 100.0, DYNAMIC: 150.0},
        grid_s={OURS: [0.001] * 5, BASELINE: [0.002] * 5, DYNAMIC: [0.0008] * 5},
        bare_s=0.002,
        bare_long_s=0.02,
    )
    if with_http:
        found.http = WrkResult(requests_per_s=225.0, p50_s=0.2, p99_s=0.3, requests=900)
        found.http_later = WrkResult(requests_per_s=240.0, p50_s=0.2, p99_s=0.3, requests=960)
        found.idle = WrkResult(requests_per_s=300.0, p50_s=0.0025, p99_s=0.3, requests=900)
        found.idle_long = WrkResult(requests_per_s=50.0, p50_s=0.021, p99_s=0.3, requests=90)
    table = Table()

    add_engine(found, table)

    compared = {what: row.compared for what, row in table.rows.items()}
    assert compared["a lone text of 16 tokens"] == [pytest.approx(1.25)]
    assert compared[f"texts offline, to {BASELINE}"] == [3.0]
    assert compared[f"texts offline, to {DYNAMIC}"] == [2.0]
    if with_http:
        assert compared["unseen texts over HTTP, 64 clients, a new server"] == [0.75]
        assert compared["unseen texts over HTTP, 64 clients, seconds later"] == [0.8]
        assert compared["idle, a short text"] == [pytest.approx(0.5)]
        assert compared["idle, the longest text"] == [pytest.approx(1.05)]
    assert len(compared) == (11 if with_http else 7)


def test_the_table_is_markdown():
    table = Table()
    table.row("hits", "/s", "bare", 0.75, at_least=True).add(80.0, 100.0)
    shown = CliRunner().invoke(click.command()(table.show)).output.splitlines()

    assert [line.count("|") for line in shown] == [7, 7, 7]
    assert "| hits | 80 /s | 100 (bare) |" in shown[2]
