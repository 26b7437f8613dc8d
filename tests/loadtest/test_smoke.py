"""Every scenario and every benchmark runs at its smallest size, and every request is answered.

Both lists come from the load tester, so that a new scenario or benchmark is run here, too.
"""

import os
from collections.abc import Callable

import pytest
from click.testing import CliRunner
from load_command import loadtest

from loadtest.bench.commands import BENCHMARKS
from loadtest.cli import EXIT_NOT_ANSWERED, main
from loadtest.traffic.scenario import scenario_names
from loadtest.traffic.target import PATHS

SHOWN = {
    "speed": ("| p99 of small hits beside large hits", "| memory when ready |"),
    "engine": ("cacheproxy", "over HTTP, 64 clients"),
    "hits": ("hot hits / bare uvicorn", "exact hits in Redis / bare uvicorn + one GET"),
    "chat": ("first bytes of streams", "exact hits:"),
    "semantic": ("recall@1", "semantic hit, p50"),
    "thresholds": ("5%, steady", "us for a text"),
    "judged": ("over 2 %", "opened"),
    "scores": ("hits: cosine", "any score, at most"),
    "metrics": ("counting takes", "a scrape with 1000 namespaces"),
    "tenants": ("names without end", "hits lost"),
    "ingest": ("engine alone:", "in the last"),
    "device": ("cosine to float32", "over HTTP, 4 clients", "serve --device cuda without a GPU"),
    "token-ids": ("60 texts", "each text of a caller of its own", "o200k_base"),
    "embedded": ("neighbours are found after", "recall@1", "lookup by probe"),
    "eviction": ("S3-FIFO  optimum", "drifting", "recent"),
    "rerank": ("scores to float, Spearman", "inferred where 90 were seen      10"),
}
"""What the output of each benchmark must contain."""


IN_PROCESS = ("thresholds", "judged", "ingest", "scores", "token-ids", "embedded", "eviction")
"""Benchmarks that start no server."""


@pytest.fixture
def flags_of(model_home, empty_redis_url, wrk) -> Callable[[str], list[str]]:
    """Return a function that gives the flags of a benchmark's smallest run."""

    def flags(name: str) -> list[str]:
        home = [] if name in ("thresholds", "eviction") else ["--home", str(model_home)]
        redis = ["--redis", empty_redis_url] if name in ("hits", "semantic") else []
        # The table is made of other benchmarks: `engine` and `hits` are run by themselves.
        parts = ["--part=large", "--part=mixed"] if name == "speed" else []
        return ["bench", name, "--smoke", *home, *redis, *parts]

    return flags


@pytest.mark.parametrize("name", scenario_names())
def test_a_scenario_runs(name, small_model_home):
    done = loadtest("run", "--serve", "--smoke", "--scenario", name, "--home", small_model_home)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "Truth check: clients and server agree" in done.stdout


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_runs(name, flags_of):
    done = loadtest(*flags_of(name))

    assert done.returncode == 0, done.stdout + done.stderr
    for words in SHOWN[name]:
        assert words in done.stdout


@pytest.mark.parametrize(
    # Those of reranking and of devices do much before they ask a server: once is enough.
    "name",
    [name for name in BENCHMARKS if name not in (*IN_PROCESS, "rerank", "device", "speed")],
)
def test_a_benchmark_with_a_wrong_path_fails(name, flags_of, monkeypatch):
    for route in PATHS:
        monkeypatch.setitem(PATHS, route, "/nowhere")

    done = CliRunner().invoke(main, flags_of(name))

    assert done.exit_code == EXIT_NOT_ANSWERED, done.output
    assert "/nowhere answered 404" in done.output


def test_peers_are_compared(model_home):
    """One peer only, because the others bring some gigabytes of PyTorch."""
    work = model_home / "test-peers"
    if not (work / "LiteLLM").is_dir() and not os.environ.get("CI"):
        pytest.skip("LiteLLM is installed for this test in CI only: some 200 packages")

    done = loadtest(
        *("peers", "--smoke", "--only", "litellm", "--work", work, "--home", model_home),
        timeout_s=600,
    )

    if "error: pip failed" in done.stderr and not os.environ.get("CI"):
        pytest.skip(done.stderr.splitlines()[-1])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "LiteLLM, cache in memory" in done.stdout


def test_a_benchmark_without_wrk_says_what_to_install(model_home, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))

    done = CliRunner().invoke(main, ["bench", "hits", "--smoke", "--home", str(model_home)])

    assert done.exit_code == 2
    assert "error: wrk is not installed" in done.output
