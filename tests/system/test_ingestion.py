"""Corpora through a real server: warmed up, killed and started again half-way."""

import json
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from pages import ROOT, sources
from server_process import Server

TEXTS = [
    f"Question {i}: how do I reset the password of account {i * 7919 % 1000}?" for i in range(600)
]


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    return path


def cacheproxy(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "cacheproxy", *map(str, arguments)]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(cacheproxy(*arguments), capture_output=True, text=True, timeout=300)


def test_after_warming_up_every_request_of_the_openai_client_is_a_hit(model_home, corpus, tmp_path):
    server = Server(model_home, f"sqlite:///{tmp_path / 'cache.sqlite'}")
    try:
        done = run("warm", corpus, "--url", server.url, "--namespace", "docs", "--tag", "v1")
        assert done.returncode == 0, done.stderr
        assert "600 rows" in done.stderr
        inferred = server.inferred()
        client = server.client(default_headers={"X-Cacheproxy-Namespace": "docs"})
        for start in range(0, 600, 100):
            answer = client.embeddings.with_raw_response.create(
                model="all-MiniLM-L6-v2", input=TEXTS[start : start + 100]
            )
            assert "fwd=" not in answer.headers["cache-status"]
        assert server.inferred() == inferred
    finally:
        server.stop()


def test_a_server_that_is_killed_half_way_costs_no_row(model_home, corpus, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    store = f"sqlite:///{tmp_path / 'cache.sqlite'}"
    by_server, here = tmp_path / "by_server.npy", tmp_path / "here.npy"
    server = Server(model_home, store, "--port", str(port))
    command = cacheproxy("embed", corpus, "--url", server.url, "--output", by_server)
    embedding = subprocess.Popen(
        [*command, "--batch-tokens", "400"], stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 120
        while server.inferred() < 100:
            assert time.monotonic() < deadline
        server.kill()
        server = Server(model_home, store, "--port", str(port))
        _, said = embedding.communicate(timeout=240)
        assert embedding.returncode == 0, said
    finally:
        embedding.kill()
        server.stop()

    assert run("embed", corpus, "--home", model_home, "--output", here).returncode == 0
    assert np.load(by_server).tobytes() == np.load(here).tobytes()


def test_a_server_that_is_not_there_ends_the_command_with_69(corpus, tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        flags = "--model", "any", "--give-up-s", "0.5", "--output", tmp_path / "v.npy"
        done = run("embed", corpus, "--url", url, *flags)

    assert done.returncode == 69
    assert "no answer" in done.stderr


def test_the_python_example_of_the_page_runs(model_home, corpus, tmp_path):
    (example,) = sources(ROOT / "docs" / "ingestion.md", "python")
    server = Server(model_home, "memory://")
    try:
        done = subprocess.run(
            [sys.executable, "-c", example.replace("http://127.0.0.1:8080", server.url)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
        )
    finally:
        server.stop()

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["600 0", *(f"{i} True" for i in range(600))]
