"""Exports, read by the tools that they are for."""

import subprocess
import urllib.request
from contextlib import suppress

import msgspec
import pytest
from asking import wait_until
from click.testing import CliRunner
from debian_programs import need_program
from hdrh.log import HistogramLogReader
from load_results import phase_of, result_of
from prometheus_client.parser import text_string_to_metric_families

from loadtest.cli import main
from loadtest.results.result import Kept, Limit, make_histogram
from loadtest.servers.processes import free_port


@pytest.fixture
def result(tmp_path):
    promise = Kept("a: p99_ms at most 9", 5, 9, True, "a", "", "p99_ms")
    found = result_of(
        phase_of("first one", 10, 5),
        phase_of("b", 20, 50, refused_share=0.1),
        promises=[promise],
        limit=Limit(18.0, 17.0, 19.0, 0.1),
    )
    path = tmp_path / "a.json"
    path.write_bytes(msgspec.json.encode(found))
    return path


def export(*arguments):
    return CliRunner().invoke(main, ["export", *map(str, arguments)])


def test_the_hdr_log_has_every_answer_in_the_window_of_its_tag(result, tmp_path):
    done = export(result, "--hdr", tmp_path / "a.hlog")

    assert done.exit_code == 0, done.output
    reader = HistogramLogReader(str(tmp_path / "a.hlog"), make_histogram())
    intervals = []
    while (interval := reader.get_next_interval_histogram()) is not None:
        intervals.append(interval)
    counts: dict[str, int] = {}
    for interval in intervals:
        counts[interval.get_tag()] = counts.get(interval.get_tag(), 0) + interval.total_count
    assert counts == {
        "first_one/questions/hot": 100,
        "b/questions/hot": 180,
        "b/questions/refused": 20,
    }
    starts = [interval.get_start_time_stamp() for interval in intervals[:20]]
    assert starts == [1000 * number for number in range(20)]
    assert max(interval.get_max_value() for interval in intervals) == pytest.approx(
        50_000, rel=0.01
    )


def test_a_real_pushgateway_takes_all_figures(result):
    name = "prometheus-pushgateway"
    program = need_program(name, name, f"usr/bin/{name}", with_depends=False)
    url = f"http://127.0.0.1:{free_port()}"
    command = [str(program.path), f"--web.listen-address={url.removeprefix('http://')}"]
    gateway = subprocess.Popen(command, env=program.environment, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: answers(f"{url}/-/ready"))
        done = export(result, "--push", url)
        assert done.exit_code == 0, done.output
        with urllib.request.urlopen(f"{url}/metrics") as response:
            text = response.read().decode()
    finally:
        gateway.terminate()
        gateway.wait()

    labels = ("phase", "tier", "le", "bound")
    found = {
        (sample.name, *(sample.labels.get(label, "") for label in labels)): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.labels.get("scenario") == "mine"
    }
    assert found["loadtest_offered_per_second", "b", "", "", ""] == 20
    assert found["loadtest_refused_ratio", "b", "", "", ""] == pytest.approx(0.1)
    assert found["loadtest_p99_seconds", "b", "", "", ""] == pytest.approx(0.05, rel=0.02)
    assert found["loadtest_latency_seconds_bucket", "b", "hot", "0.1", ""] == 180
    assert found["loadtest_latency_seconds_bucket", "b", "hot", "0.025", ""] == 0
    assert found["loadtest_limit_per_second", "", "", "", "low"] == 17
    assert found["loadtest_promise_kept", "", "", "", ""] == 1


def test_a_pushgateway_that_is_not_there_is_told_in_one_line(result):
    done = export(result, "--push", "http://127.0.0.1:9")

    assert done.exit_code == 2
    assert "error: http://127.0.0.1:9: " in done.output


def answers(url: str) -> bool:
    with suppress(OSError), urllib.request.urlopen(url, timeout=1):
        return True
    return False
