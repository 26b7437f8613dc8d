"""A tiny OpenAI-compatible server whose answers, and what it says of them, a test decides."""

import json
import threading
import time
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

METRICS = """\
# TYPE cacheproxy_requests_total counter
cacheproxy_requests_total{{route="embeddings",model="m",status="200"}} {answered}
# TYPE cacheproxy_request_duration_seconds histogram
cacheproxy_request_duration_seconds_bucket{{route="embeddings",outcome="hot",le="+Inf"}} {answered}
cacheproxy_request_duration_seconds_count{{route="embeddings",outcome="hot"}} {answered}
cacheproxy_request_duration_seconds_sum{{route="embeddings",outcome="hot"}} 1
# TYPE cacheproxy_lookups_total counter
cacheproxy_lookups_total{{model="m",tier="hot",result="hit"}} {hits}
# TYPE process_resident_memory_bytes gauge
process_resident_memory_bytes 5e7
"""


class ScriptedServer:
    """Used as a context manager.

    Attributes:
        pause_s: before each answer, and between the pieces of a stream.
        lost_hits: hits that its metrics do not count.
        has_metrics: whether it has any.
        answers_every_path: with the same JSON, `/metrics` too.
        breaks_off: whether streams end without their end.
        closes: whether it closes the connection after each answer.
        slow_every: number of answers of which one takes `slow_s` more; 0 for none.
        answers_one_at_a_time: whether others wait for the pause of one.
        bodies: that were posted.
    """

    def __init__(self):
        self.pause_s = 0.0
        self.lost_hits = 0
        self.has_metrics = False
        self.answers_every_path = False
        self.breaks_off = False
        self.closes = False
        self.slow_every = 0
        self.slow_s = 0.0
        self.answers_one_at_a_time = False
        self._turn = threading.Lock()
        self.bodies: list[dict] = []

    def __enter__(self):
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def log_message(self, *_):
                pass

            def do_GET(self):
                if outer.answers_every_path:
                    self._answer(200, b'{"data": []}')
                    return
                if self.path != "/metrics" or not outer.has_metrics:
                    self._answer(404, b"{}")
                    return
                answered = len(outer.bodies)
                text = METRICS.format(answered=answered, hits=max(answered - outer.lost_hits, 0))
                self._answer(200, text.encode())

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                if not self.path.startswith("/v1/"):
                    self._answer(404, b"{}")
                    return
                outer.bodies.append(body)
                with outer._turn if outer.answers_one_at_a_time else nullcontext():
                    time.sleep(outer.pause_s)
                if outer.slow_every and len(outer.bodies) % outer.slow_every == 0:
                    time.sleep(outer.slow_s)
                if body.get("stream"):
                    self._stream()
                else:
                    self._answer(200, b'{"data": []}')

            def _answer(self, status, body):
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.send_header("cache-status", "cacheproxy; hit; ttl=9; detail=hot")
                if outer.closes:
                    self.send_header("connection", "close")
                self.end_headers()
                self.wfile.write(body)

            def _stream(self):
                self.send_response(200)
                self.send_header("content-type", "text/event-stream")
                self.send_header("transfer-encoding", "chunked")
                self.end_headers()
                pieces = [b'data: {"choices":[{"delta":{"content":"word"}}]}\n\n'] * 3
                for piece in [*pieces, *([] if outer.breaks_off else [b"data: [DONE]\n\n"])]:
                    self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                    time.sleep(outer.pause_s)
                self.wfile.write(b"0\r\n\r\n")

        class Server(ThreadingHTTPServer):
            request_queue_size = 1_024

        self._server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
