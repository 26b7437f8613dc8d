"""Start, drain, kill, damage: what a process owes those who use it."""

import concurrent.futures
import shutil
import signal
import sqlite3
import subprocess
import sys
import time

import httpx
import onnxruntime
import pytest

MODEL = "all-MiniLM-L6-v2"
NO_SOURCES = {"PATH": "/nonexistent", "PIP_NO_INDEX": "1", "HF_HUB_OFFLINE": "1"}


def embed(server, text, **headers) -> httpx.Response:
    return server.http.post(
        "/v1/embeddings",
        json={"input": text, "model": MODEL},
        headers=headers,
        timeout=60,
    )


def cacheproxy(*arguments: str, **more) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "cacheproxy", *arguments],
        capture_output=True,
        text=True,
        check=False,
        **more,
    )


def test_sigterm_is_not_ready_at_once_and_still_finishes_what_is_in_flight(start_server):
    server = start_server("--drain-s", "3")
    texts = [f"text {i} " + "word " * 240 for i in range(100)]
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        in_flight = pool.submit(embed, server, texts)
        deadline = time.monotonic() + 30
        while not server.inferred():
            assert time.monotonic() < deadline
        server.process.send_signal(signal.SIGTERM)

        while (ready := server.http.get("/readyz")).status_code == 200:
            assert time.monotonic() < deadline
        assert ready.status_code == 503
        assert server.http.get("/healthz").status_code == 200
        assert in_flight.result().status_code == 200
    assert server.process.wait(60) == 0


def test_what_was_answered_before_sigterm_is_stored(start_server):
    server = start_server()
    texts = [f"flush me {i}" for i in range(500)]
    assert embed(server, texts).status_code == 200
    assert server.stop() == 0

    server = start_server()
    assert "hit" in embed(server, texts).headers["cache-status"]


def test_kill_9_under_load_leaves_a_store_that_opens_clean(start_server, tmp_path):
    server = start_server()
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(embed, server, [f"{i} {j}" for j in range(50)]) for i in range(40)]
        deadline = time.monotonic() + 60
        while server.metric("writeback_stored_total") < 200:
            assert time.monotonic() < deadline
        server.kill()
    answered = sum(not future.exception() for future in asked)

    with sqlite3.connect(tmp_path / "cache.sqlite") as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    server = start_server()
    assert answered > 0
    assert embed(server, "0 0").status_code == 200
    assert "set aside" not in server.log


def test_a_store_file_that_is_garbage_does_not_keep_the_server_from_starting(
    start_server, tmp_path
):
    (tmp_path / "cache.sqlite").write_bytes(b"this is not a database" * 1_000)

    server = start_server()

    assert embed(server, "hello").status_code == 200
    assert any(path.name != "cache.sqlite" for path in tmp_path.glob("cache.sqlite*"))


def test_a_taken_port_is_told_in_one_line_with_exit_code_2(server, model_home):
    port = server.url.rsplit(":", 1)[1]
    refused = cacheproxy("serve", "--port", port, "--home", str(model_home))

    assert refused.returncode == 2
    assert len(refused.stderr.splitlines()) == 1
    assert port in refused.stderr


def truncated(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.mark.parametrize("damage", [truncated, flipped])
@pytest.mark.parametrize(
    "file", ["model.onnx", "tokenizer.json", "static.npy", "shallow.onnx", "model.json"]
)
def test_a_damaged_model_file_is_refused_in_one_clear_line(model_home, tmp_path, damage, file):
    shutil.copytree(model_home / "models", tmp_path / "models")
    victim = tmp_path / "models" / MODEL / file
    victim.write_bytes(damage(victim.read_bytes()))

    verified = cacheproxy("model", "verify", MODEL, "--home", str(tmp_path))

    assert verified.returncode == 78
    assert len(verified.stderr.splitlines()) == 1
    assert file in verified.stderr


def test_a_damaged_model_is_never_served_but_to_be_built_again(model_home, tmp_path):
    shutil.copytree(model_home / "models", tmp_path / "models")
    graph = tmp_path / "models" / MODEL / "model.onnx"
    graph.write_bytes(flipped(graph.read_bytes()))

    refused = cacheproxy("embed", "hello", "--home", str(tmp_path), env=NO_SOURCES)

    assert refused.returncode == 78
    assert graph.name in refused.stderr
    assert "building it again" in refused.stderr
    assert not refused.stdout


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(),
    reason="this onnxruntime can use a GPU",
)
def test_an_unusable_gpu_is_reported_in_one_line_with_exit_code_2(model_home):
    refused = cacheproxy("serve", "--device", "cuda", "--home", str(model_home))

    assert refused.returncode == 2
    assert refused.stderr.startswith("cacheproxy: device: cuda cannot be used")
    assert len(refused.stderr.splitlines()) == 1


def test_no_model_and_no_way_to_get_one_is_exit_code_78(tmp_path):
    refused = cacheproxy(*("serve", "--port", "0", "--home", str(tmp_path)), env=NO_SOURCES)

    assert refused.returncode == 78
    assert "Traceback" not in refused.stderr
