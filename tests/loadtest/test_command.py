"""Whole runs against a server that a test has in its hands."""

from itertools import pairwise

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram
from load_command import loadtest, read_json, write_scenario
from scripted_server import ScriptedServer

KNOWN = "known_texts = 5"
STREAM = '[[phases.streams]]\nname = "s"\nper_s = 50\nmix = { repeat = 1.0 }'


@pytest.fixture
def server():
    with ScriptedServer() as server:
        yield server


def run(server, scenario, *arguments):
    return loadtest("run", "--url", server.url, "--scenario", scenario, *arguments)


def test_a_server_that_counts_right_agrees(server, tmp_path):
    server.has_metrics = True

    done = run(server, write_scenario(tmp_path, STREAM, more=KNOWN))

    assert done.returncode == 0, done.stderr
    assert "clients and server agree in all" in done.stdout


def test_a_server_whose_metrics_lie_is_found_out(server, tmp_path):
    server.has_metrics = True
    path = write_scenario(tmp_path, STREAM, more=KNOWN)
    # Not to be told from the truth by the first counts alone: the difference grows in the run.
    server.lost_hits = 10

    done = run(server, path, "--json", tmp_path / "a.json", "--report", tmp_path / "a.html")

    assert done.returncode == 1
    assert "DIFFERENCE only: texts that hit in the hot tier" in done.stdout
    assert "texts that hit in the hot tier" in (tmp_path / "a.html").read_text()


def test_a_server_that_answers_every_path_alike_has_no_metrics(server, tmp_path):
    server.answers_every_path = True

    done = run(server, write_scenario(tmp_path, STREAM))

    assert done.returncode == 0, done.stderr
    assert "no metrics of cacheproxy" in done.stdout


def test_a_stalled_server_cannot_hide_its_queue(server, tmp_path):
    server.pause_s = 0.3  # of one client's view: the schedule does not wait for it
    streams = '[[phases.streams]]\nname = "s"\nper_s = 40\nmix = { unseen = 1.0 }'

    done = run(server, write_scenario(tmp_path, streams), "--json", tmp_path / "a.json")

    assert done.returncode == 0, done.stderr
    (stream,) = read_json(tmp_path / "a.json")["phases"][0]["streams"]
    assert stream["figures"]["p50_ms"] >= 300
    assert stream["figures"]["offered_per_s"] == pytest.approx(40, rel=0.3)
    assert len(server.bodies) == stream["statuses"]["200"]
    assert "no metrics of cacheproxy" in done.stdout


def test_a_closed_loop_sends_when_it_has_its_answer(server, tmp_path):
    server.pause_s = 0.1
    streams = '[[phases.streams]]\nname = "s"\nclients = 2\nmix = { unseen = 1.0 }'

    done = run(server, write_scenario(tmp_path, streams), "--processes", 2)

    assert done.returncode == 0, done.stderr
    assert 5 <= len(server.bodies) <= 2 * 1 / 0.1


def test_several_processes_send_one_schedule(server, tmp_path):
    streams = '[[phases.streams]]\nname = "s"\nper_s = 60\nmix = { unseen = 1.0 }'
    path = write_scenario(tmp_path, streams)
    for processes in (1, 3):
        assert run(server, path, "--processes", processes).returncode == 0

    texts = [body["input"] for body in server.bodies]
    half = len(texts) // 2
    assert sorted(texts[:half]) == sorted(texts[half:])
    assert len(set(texts[:half])) == half


def test_figures_of_several_processes_are_those_of_all_their_exchanges(server, tmp_path):
    """Not a mean of each process's: the slowest answers are all of one of them."""
    server.pause_s = 0.005
    server.slow_every, server.slow_s = 20, 0.2
    streams = '[[phases.streams]]\nname = "s"\nper_s = 60\nmix = { unseen = 1.0 }'
    arguments = ("--processes", 3, "--json", tmp_path / "a.json")

    assert run(server, write_scenario(tmp_path, streams), *arguments).returncode == 0

    (stream,) = read_json(tmp_path / "a.json")["phases"][0]["streams"]
    values_us = [
        item.value_iterated_to
        for latencies in stream["latencies"]
        for window in latencies["windows"]
        for item in HdrHistogram.decode(window).get_recorded_iterator()
        for _ in range(item.count_at_value_iterated_to)
    ]
    assert len(values_us) == len(server.bodies)
    for figure, share in (("p50_ms", 0.5), ("p90_ms", 0.9), ("p99_ms", 0.99)):
        found = np.quantile(values_us, share, method="higher") / 1000
        assert stream["figures"][figure] == pytest.approx(found, rel=0.002)
    assert stream["figures"]["p99_ms"] >= 200


def test_connections_that_the_server_closes_are_made_anew(server, tmp_path):
    server.closes = True

    done = run(server, write_scenario(tmp_path, STREAM, more=KNOWN), "--json", tmp_path / "a.json")

    assert done.returncode == 0, done.stderr
    (stream,) = read_json(tmp_path / "a.json")["phases"][0]["streams"]
    assert set(stream["statuses"]) == {"200"}


@pytest.mark.parametrize("streamed", [False, True])
def test_chat_is_timed_to_its_first_byte_and_to_its_end(server, tmp_path, streamed):
    server.pause_s = 0.05
    streams = (
        '[[phases.streams]]\nname = "s"\nroute = "chat"\nper_s = 20\n'
        f"streamed = {str(streamed).lower()}"
    )

    done = run(server, write_scenario(tmp_path, streams), "--json", tmp_path / "a.json")

    assert done.returncode == 0, done.stderr
    (stream,) = read_json(tmp_path / "a.json")["phases"][0]["streams"]
    assert set(stream["statuses"]) == {"200"}
    assert server.bodies[0]["messages"][0]["role"] == "user"
    assert server.bodies[0]["stream"] is streamed
    figures = stream["figures"]
    between_ms = figures["p50_ms"] - figures["first_p50_ms"]
    assert between_ms >= 100 if streamed else between_ms < 50
    if streamed:  # three words, with a pause between one and the next
        assert figures["first_token_p50_ms"] >= 50
        assert figures["per_token_p50_ms"] >= 50
        assert figures["tokens_per_s"] > 0
        assert "per token: p50" in done.stdout
    else:
        assert "per_token_p50_ms" not in figures


def test_sessions_send_all_that_was_said_and_think_between_their_turns(server, tmp_path):
    streams = (
        '[[phases.streams]]\nname = "s"\nroute = "chat"\nper_s = 10\nturns = 3\nthink_s = 0.05\n'
        "mix = { unseen = 1.0 }"
    )

    done = run(server, write_scenario(tmp_path, streams, seconds=2), "--json", tmp_path / "a.json")

    assert done.returncode == 0, done.stderr
    sessions: dict[str, list] = {}
    for body in server.bodies:
        sessions.setdefault(body["messages"][0]["content"], []).append(body["messages"])
    assert max(map(len, sessions.values())) == 3
    for turns in sessions.values():
        assert [len(said) for said in turns] == [1, 3, 5][: len(turns)]
        assert all(later[: len(earlier)] == earlier for earlier, later in pairwise(turns))
    (stream,) = read_json(tmp_path / "a.json")["phases"][0]["streams"]
    assert stream["expected"] == {"unseen": len(server.bodies)}


def test_clients_think_before_they_ask_again(server, tmp_path):
    streams = '[[phases.streams]]\nname = "s"\nclients = 4\nthink_s = 0.2\nmix = { unseen = 1.0 }'

    done = run(server, write_scenario(tmp_path, streams, seconds=2))

    assert done.returncode == 0, done.stderr
    # 40 are expected; without thinking some thousand requests would come.
    assert 10 <= len(server.bodies) <= 100


def test_find_limit_steps_up_and_narrows(server, tmp_path):
    server.pause_s, server.answers_one_at_a_time = 0.02, True  # 50 answers a second, at most
    streams = '[[phases.streams]]\nname = "s"\nper_s = 1\nmix = { unseen = 1.0 }'

    done = loadtest(
        *("find-limit", "--url", server.url, "--scenario", write_scenario(tmp_path, streams)),
        *("--start", 20, "--step", 3, "--trials", 5, "--seconds", 1, "--at-most", "p99_ms=300"),
        *("--json", tmp_path / "a.json", "--report", tmp_path / "a.html"),
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "Limit: " in done.stdout
    limit = read_json(tmp_path / "a.json")["limit"]
    assert len(limit["trials"]) == 5
    assert not limit["trials"][0]["broken"]
    assert any(trial["broken"] for trial in limit["trials"])
    assert limit["low_per_s"] <= limit["per_s"] <= limit["high_per_s"]
    assert 20 <= limit["per_s"] <= 180
    assert "95 % interval" in (tmp_path / "a.html").read_text()


def test_a_stream_that_is_cut_short_fails_the_run(server, tmp_path):
    server.breaks_off = True
    streams = '[[phases.streams]]\nname = "s"\nroute = "chat"\nper_s = 20\nstreamed = true\n'

    done = run(server, write_scenario(tmp_path, streams), "--json", tmp_path / "a.json")

    assert done.returncode == 4
    assert "FAILED only: s: " in done.stdout
    assert "stream cut short" in done.stdout


def test_a_wrong_path_fails_the_run(server, tmp_path):
    done = loadtest(
        *("run", "--url", f"{server.url}/nowhere"),
        *("--scenario", write_scenario(tmp_path, STREAM)),
    )

    assert done.returncode == 4
    assert "requests failed: 404" in done.stdout


def test_a_wrong_path_fails_a_run_while_texts_become_known(server, tmp_path):
    done = loadtest(
        *("run", "--url", f"{server.url}/nowhere"),
        *("--scenario", write_scenario(tmp_path, STREAM, more=KNOWN)),
    )

    assert done.returncode == 4
    assert "error: known texts: 5 of 5 requests failed: 404 (5)" in done.stderr


def test_a_broken_promise_fails_the_run(server, tmp_path):
    streams = f'{STREAM}\n[[promises]]\nphase = "only"\nfigure = "p50_ms"\nat_most = 0'

    done = run(server, write_scenario(tmp_path, streams))

    assert done.returncode == 3
    assert "BROKEN only: p50_ms" in done.stdout


def test_two_results_are_compared_by_ratios_with_their_spread(server, tmp_path):
    path = write_scenario(tmp_path, STREAM, more=KNOWN)
    for name, pause_s in (("a", 0.02), ("b", 0.06)):
        server.pause_s = pause_s
        assert run(server, path, "--json", tmp_path / f"{name}.json").returncode == 0

    page = tmp_path / "compared.html"
    done = loadtest("compare", tmp_path / "a.json", tmp_path / "b.json", "--report", page)

    assert "higher in 1" in page.read_text()
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if "p50 ms" in line]
    *_, ratio, low, _, high = line.split()
    assert 1.5 < float(low) <= float(ratio) <= float(high) < 4


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["run"], "either --url or --serve"),
        (["run", "--url", "http://127.0.0.1:9", "--scenario", "smoke"], "111"),
        (["run", "--url", "http://127.0.0.1:9", "--scenario", "none"], "there is no scenario"),
        (["compare", "/nowhere/a.json", "/nowhere/b.json"], "/nowhere/a.json"),
        (["find-limit", "--url", "http://127.0.0.1:9", "--step", "1"], "--step must be more"),
        (["find-limit", "--url", "http://127.0.0.1:9", "--at-most", "p99_ms"], "p99_ms=50"),
        (["find-limit", "--url", "http://127.0.0.1:9", "--scenario", "overload"], "per_s"),
        (["export", "/nowhere/a.json"], "--hdr, --push or both"),
    ],
)
def test_a_run_that_is_not_possible_ends_with_one_line(arguments, told):
    done = loadtest(*arguments)

    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert told in line
