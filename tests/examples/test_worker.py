"""The Go worker of docs/examples/worker, whose proxy is killed half-way."""

import json
import time

from example_application import Application
from go_toolchain import go_environment
from server_process import Server

CHUNKS = 10_000
BATCH, IN_FLIGHT = 32, 8


def test_the_worker_loses_nothing_when_the_proxy_is_killed(small_model_home, tmp_path):
    model = "paraphrase-MiniLM-L3-v2"
    store = f"sqlite:///{tmp_path / 'cache.sqlite'}"
    flags = ("--model", model, "--drain-s", "0", "--semantic-mode", "off")
    server = Server(small_model_home, store, *flags)
    port = server.url.rpartition(":")[2]
    environment = {
        **go_environment(),
        "CACHEPROXY_URL": server.url,
        "MODEL": model,
    }
    application = Application("worker", tmp_path, environment)
    application.run("test")

    chunks = application.folder / "chunks.jsonl"
    lines = [json.dumps({"id": str(i), "text": f"chunk number {i}"}) for i in range(CHUNKS)]
    chunks.write_text("".join(line + "\n" for line in lines))
    output = application.folder / "vectors.jsonl"
    process = application.start("start", tmp_path / "worker.log")
    before = server.inferred()
    deadline = time.monotonic() + 120
    while not output.exists() or output.read_bytes().count(b"\n") < CHUNKS / 2:
        assert process.poll() is None, (tmp_path / "worker.log").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.01)
        inferred = server.inferred() - before
    answered = output.read_bytes().count(b"\n")
    server.kill()
    server = Server(small_model_home, store, *flags, "--port", port)
    try:
        assert process.wait(120) == 0, (tmp_path / "worker.log").read_text()
        again = server.inferred()
    finally:
        server.stop()

    assert "10000 embedded, 0 refused, 0 done before" in (tmp_path / "worker.log").read_text()
    rows = [json.loads(line) for line in output.open()]
    assert sorted(int(row["id"]) for row in rows) == list(range(CHUNKS))
    assert all(len(row["embedding"]) == 384 for row in rows)
    assert len({tuple(row["embedding"]) for row in rows}) == CHUNKS
    # The new server infers what the old one had not answered, and nothing of what it had.
    assert again <= CHUNKS - answered
    assert inferred + again <= CHUNKS + BATCH * IN_FLIGHT
