"""Metrics that are away for a moment do not end a run."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from loadtest.results import scrape
from loadtest.results.scrape import NoMetrics, Watch, settled_scrape

METRICS = b"""# TYPE cacheproxy_requests counter
cacheproxy_requests_total{route="embeddings",status="200"} 7
cacheproxy_build_info{version="1"} 1
process_resident_memory_bytes 1000
"""


@contextmanager
def serving(*statuses: int) -> Iterator[str]:
    """Yield the URL of a server that answers with these statuses, and with the last one on."""
    left = list(statuses)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status = left.pop(0) if len(left) > 1 else left[0]
            self.send_response(status)
            self.end_headers()
            self.wfile.write(METRICS if status == 200 else b"{}")

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(scrape, "_AGAIN_S", 0.01)


def test_a_server_that_has_no_metrics_for_a_moment_is_asked_again():
    with serving(503, 503, 200) as url:
        assert settled_scrape(url).value("cacheproxy_requests_total") == 7


@pytest.mark.parametrize("status", [503, 404])
def test_a_server_that_never_has_any_is_told_of(status):
    with serving(status) as url, pytest.raises(NoMetrics, match=str(status)):
        settled_scrape(url)


def test_the_watch_goes_on_after_a_moment_without_metrics():
    with serving(503, 200) as url, Watch(url) as watch:
        until = time.monotonic() + 10
        while not watch.moments and time.monotonic() < until:
            time.sleep(0.01)
    assert watch.moments
