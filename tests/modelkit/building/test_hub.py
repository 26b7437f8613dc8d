"""The hub as a source: its files are used if it has the right ones, and it is never waited for."""

import hashlib
import http.server
import socket
import threading

import pytest

from cacheproxy.errors import ModelError
from cacheproxy.modelkit.building.fetch import fetch_files
from cacheproxy.modelkit.manifest import EncoderSettings, HubSource, Manifest, Prefixes

REVISION = "0123456789abcdef0123456789abcdef01234567"
CONTENT = {"tokenizer.json": b"{}", "model.safetensors": b"weights" * 100_000}
MANIFEST = Manifest(
    name="small",
    aliases=(),
    kind="embeddings",
    architecture="bert",
    encoder=EncoderSettings(4, 1e-12),
    pooling="mean",
    max_tokens=64,
    dimensions=48,
    prefixes=Prefixes(),
    matryoshka=(),
    files={name: hashlib.sha256(content).hexdigest() for name, content in CONTENT.items()},
    sources=(HubSource("someone/something", REVISION),),
)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub on this machine; returns the files that it has, which a test may change."""
    files = dict(CONTENT)

    class Hub(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            content = files.get(self.path.rpartition("/")[2])
            found = content is not None and f"/resolve/{REVISION}/" in self.path
            self.send_response(200 if found else 404)
            if found:
                self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
                self.send_header("X-Repo-Commit", REVISION)
            self.send_header("Content-Length", str(len(content) if found else 0))
            self.end_headers()
            return content if found else b""

        def do_GET(self):
            self.wfile.write(self.do_HEAD())

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    yield files
    server.shutdown()
    server.server_close()


def test_a_hub_gives_the_files(hub, tmp_path):
    files = fetch_files(MANIFEST, tmp_path)

    assert {name: path.read_bytes() for name, path in files.items()} == CONTENT


def test_offline_the_hubs_local_cache_gives_the_files(hub, tmp_path, monkeypatch):
    fetch_files(MANIFEST, tmp_path / "first")
    hub.clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    files = fetch_files(MANIFEST, tmp_path / "second")

    assert {name: path.read_bytes() for name, path in files.items()} == CONTENT


def test_a_hub_with_other_files_is_refused(hub, tmp_path):
    hub["model.safetensors"] = b"other weights"

    with pytest.raises(ModelError, match=r"model\.safetensors has SHA-256"):
        fetch_files(MANIFEST, tmp_path)

    assert not list((tmp_path / "sources").rglob("*.safetensors"))


def test_a_hub_without_the_files_is_passed_over(hub, tmp_path):
    hub.clear()

    with pytest.raises(ModelError, match="could not be fetched"):
        fetch_files(MANIFEST, tmp_path)


def test_offline_without_a_cached_copy_no_hub_is_asked(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    with pytest.raises(ModelError, match="HF_HUB_OFFLINE is set"):
        fetch_files(MANIFEST, tmp_path)


def test_a_hub_that_accepts_and_never_answers_is_given_up(tmp_path, monkeypatch):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))

        with pytest.raises(ModelError, match="timed out"):
            fetch_files(MANIFEST, tmp_path)
