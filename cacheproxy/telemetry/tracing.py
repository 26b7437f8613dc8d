"""OpenTelemetry traces: a span for each request, with a child span for each stage.

Tracing is on if OTEL_EXPORTER_OTLP_ENDPOINT (or …_TRACES_ENDPOINT) is set and the extra `otel` is
installed. OpenTelemetry's own variables configure the rest (OTEL_SERVICE_NAME, OTEL_TRACES_SAMPLER,
OTEL_EXPORTER_OTLP_HEADERS, …). While it is off, nothing of OpenTelemetry is imported.
"""

import logging
import os
import time
from typing import Any

from cacheproxy.telemetry.request_trace import Visit

logger = logging.getLogger(__name__)

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


class Tracer:
    """Turns visits into spans and exports them in the background."""

    def __init__(self) -> None:
        """Set up the exporter from the environment.

        Raises:
            ImportError: the extra is not installed.
        """
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        name = {} if "OTEL_SERVICE_NAME" in os.environ else {"service.name": "cacheproxy"}
        self._provider = TracerProvider(resource=Resource.create(name))
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("cacheproxy")
        self._propagator = TraceContextTextMapPropagator()
        self._trace = trace

    def begin(self, visit: Visit) -> None:
        """Start the span of a visit, within the caller's trace if there is one."""
        context = self._propagator.extract(visit.passed_on())
        visit.span = self._tracer.start_span(
            "request", context, kind=self._trace.SpanKind.SERVER, start_time=time.time_ns()
        )
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, self._trace.set_span_in_context(visit.span))
        visit.traceparent = carrier.get("traceparent", visit.traceparent)
        visit.tracestate = carrier.get("tracestate", visit.tracestate)

    def end(self, visit: Visit) -> None:
        """End the span of a visit, with a child span for each stage."""
        span: Any = visit.span
        if span.is_recording():
            span.update_name(visit.route or "unknown")
            span.set_attributes(
                {
                    "http.response.status_code": visit.status,
                    "cacheproxy.request_id": visit.request_id.decode(),
                    "cacheproxy.model": visit.model,
                    "cacheproxy.namespace": visit.namespace_id,
                    "cacheproxy.outcome": visit.texts or visit.outcome,
                }
            )
            if visit.status >= 500:
                span.set_status(self._trace.StatusCode.ERROR)
            # The stages were timed by a clock whose zero is not 1970.
            zero_s = time.time() - time.perf_counter()
            inside = self._trace.set_span_in_context(span)
            for name, started, ended in visit.stages:
                stage = self._tracer.start_span(name, inside, start_time=_ns(zero_s + started))
                stage.end(_ns(zero_s + ended))
        span.end()

    def stop(self) -> None:
        """Export the remaining spans."""
        self._provider.shutdown()


def start_tracing() -> Tracer | None:
    """Return a tracer if the environment asks for traces."""
    wanted = any(os.environ.get(name) for name in _ENDPOINTS)
    if not wanted or os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    if os.environ.get("OTEL_TRACES_EXPORTER", "otlp") == "none":
        return None
    try:
        return Tracer()
    except ImportError:
        logger.warning("tracing is off: it needs the extra, pip install 'cacheproxy[otel]'")
        return None


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)
