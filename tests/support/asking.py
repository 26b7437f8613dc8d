"""Asking a server under test, and what users run beside it."""

import subprocess
import sys
import time

MODEL = "all-MiniLM-L6-v2"


def ask(server, text, **headers):
    headers = {name.replace("_", "-"): value.encode() for name, value in headers.items()}
    body = {"input": text, "model": MODEL}
    response = server.http.post("/v1/embeddings", json=body, headers=headers)
    assert response.status_code == 200, response.text
    return response.headers["cache-status"]


def wait_until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


def heat(server, text, **headers):
    """Have the text in the server's hot tier, and in the store."""
    ask(server, text, **headers)
    wait_until(lambda: server.metric("writeback_queue_entries") == 0)
    assert "detail=hot" in ask(server, text, **headers)


def run(*arguments):
    command = [sys.executable, "-m", "cacheproxy", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def is_cached(server, text):
    body = {"input": text, "model": MODEL}
    headers = {"cache-control": "only-if-cached"}
    return server.http.post("/v1/embeddings", json=body, headers=headers).status_code == 200
