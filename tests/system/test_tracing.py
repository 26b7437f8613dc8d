"""Traces: exported to a collector where one is named, within the trace of the caller."""

import gzip
import http.server
import subprocess
import sys
import threading

import pytest
from asking import MODEL, wait_until
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
STAGES = ("tokenize", "exact", "probe", "semantic", "inference")


class Collector(http.server.ThreadingHTTPServer):
    """Takes spans as OpenTelemetry's collector does."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.spans: list = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            content = gzip.decompress(content)
        for resource in ExportTraceServiceRequest.FromString(content).resource_spans:
            for scope in resource.scope_spans:
                self.server.spans += scope.spans
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def collector():
    collector = Collector()
    yield collector
    collector.shutdown()
    collector.server_close()


def test_a_request_is_a_span_in_its_callers_trace_and_its_stages_are_spans_in_it(
    start_server, collector
):
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "100"}
    server = start_server("--log-requests", "all", env=env)
    assert server.http.get("/healthz").status_code == 200
    answer = server.http.post(
        "/v1/embeddings",
        json={"input": "what is in a trace?", "model": MODEL},
        headers={"traceparent": f"00-{TRACE}-{PARENT}-01", "x-request-id": "night-42"},
    )
    assert answer.status_code == 200
    wait_until(lambda: any(span.name == "embeddings" for span in collector.spans))

    (request,) = [span for span in collector.spans if span.name == "embeddings"]
    assert (request.trace_id.hex(), request.parent_span_id.hex()) == (TRACE, PARENT)
    told = {one.key: one.value.string_value for one in request.attributes}
    assert told["cacheproxy.request_id"] == "night-42"
    assert told["cacheproxy.outcome"] == "miss"
    stages = [span for span in collector.spans if span.parent_span_id == request.span_id]
    assert {"tokenize", "exact", "inference"} <= {span.name for span in stages}
    slack_ns = 2_000_000  # two clocks
    for stage in stages:
        assert stage.trace_id == request.trace_id
        assert request.start_time_unix_nano - slack_ns <= stage.start_time_unix_nano
        assert stage.end_time_unix_nano <= request.end_time_unix_nano + slack_ns
    assert f"trace_id={TRACE}" in server.log
    # Nobody wants to find probes and scrapes among the traces.
    assert {span.name for span in collector.spans} <= {"embeddings", *STAGES}


def test_without_a_collector_opentelemetry_is_not_imported():
    code = (
        "import sys, cacheproxy.server.app, cacheproxy.telemetry.tracing as tracing\n"
        "assert tracing.start_tracing() is None\n"
        "sys.exit(any('opentelemetry' in name for name in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
