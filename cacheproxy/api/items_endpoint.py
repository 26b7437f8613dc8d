"""The embedding routes' endpoint: from an HTTP request to the pipeline and back.

The caller is identified before the body is read, the limits are checked before any work, and the
answer carries where it came from.
"""

import time
from collections.abc import Mapping

from starlette.types import Receive, Scope, Send

from cacheproxy.api.body import read_body
from cacheproxy.api.callers import Callers
from cacheproxy.api.connection import Watch, Watched
from cacheproxy.api.control import parse_control
from cacheproxy.api.dialects.protocol import Asked, Dialect, InputLimits
from cacheproxy.api.presentation import (
    Headers,
    cache_headers,
    counts_of,
    hit_headers,
    outcome_of,
    render_vector,
    timing_of,
)
from cacheproxy.api.repeats import Repeat, Repeats
from cacheproxy.api.response import send_json, status_of
from cacheproxy.errors import BadRequest
from cacheproxy.keys import Namespace
from cacheproxy.routes.exchange import DEFAULT_CONTROL, Answer, Request, Served
from cacheproxy.routes.items import EmbeddingPipeline, Known
from cacheproxy.telemetry.metrics import Metrics
from cacheproxy.telemetry.recorder import Recorder
from cacheproxy.telemetry.request_trace import VISIT, Visit


class EmbeddingsEndpoint:
    """An ASGI application for one route.

    `pipelines` holds each model under its name and every alias; `default_model` is taken where a
    dialect lets the model's name out.
    """

    def __init__(
        self,
        route: str,
        dialect: Dialect,
        *,
        pipelines: Mapping[str, EmbeddingPipeline],
        default_model: str,
        callers: Callers,
        limits: InputLimits,
        max_body_bytes: int,
        body_timeout_s: float,
        metrics: Metrics,
        recorder: Recorder | None = None,
    ) -> None:
        self._route = route
        self._dialect = dialect
        self._pipelines = pipelines
        self._default_model = default_model
        self._callers = callers
        self._limits = limits
        self._max_body_bytes = max_body_bytes
        self._watch = Watch(body_timeout_s=body_timeout_s)
        self._repeats = Repeats[Repeat]()
        self._recorder = recorder
        self._requests = metrics.requests
        self._answered = {
            pipeline.model.name: metrics.requests.labels(route, pipeline.model.name, "200")
            for pipeline in pipelines.values()
        }
        self._durations = {
            outcome: metrics.request_duration.labels(route, outcome)
            for outcome in ("hot", "exact", "semantic", "miss", "mixed")
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; raises `ApiError` before anything was sent."""
        visit: Visit = scope[VISIT]
        visit.route = self._route
        try:
            body, headers = await self._answer(visit, receive)
        except Exception as error:
            # No model's name: the request may have named one that is not ours.
            self._requests.labels(self._route, "", status_of(error)).inc()
            raise
        await send_json(send, 200, body, headers)

    async def _answer(self, visit: Visit, receive: Receive) -> tuple[bytes, Headers]:
        headers = visit.headers
        namespace = self._callers.identify(headers)
        visit.namespace_id = namespace.id
        control = parse_control(headers)
        with Watched(self._watch, receive) as exchange:
            body = await read_body(headers, receive, max_bytes=self._max_body_bytes)
            exchange.body_has_come()
            started = time.perf_counter()
            if self._recorder is not None:
                self._recorder.put(self._route, namespace.id, body)
            known: Known | None = None
            if control is DEFAULT_CONTROL and (repeat := self._repeats.get(namespace.id, body)):
                known = await self._pipelines[repeat.model].find_known(namespace.id, repeat.key)
                if known.served is not None:
                    return self._answer_again(visit, repeat, known.served, known.stages_s, started)
            asked = self._dialect.parse(body)
            self._limits.check(asked)
            pipeline = self._pipeline_of(asked)
            answer = await pipeline.embed(Request(namespace, asked.inputs, control), known)
        total_s = time.perf_counter() - started
        model = pipeline.model.name
        outcome = outcome_of(answer)
        self._count(visit, model, outcome, total_s)
        if len(answer.served) > 1:
            visit.texts = counts_of(answer.served)
        if outcome in {"hot", "exact"} and control is DEFAULT_CONTROL:
            self._remember(namespace, body, asked, answer, model)
        return (
            self._dialect.render(asked, answer, model, total_s),
            cache_headers(answer, outcome, control, total_s),
        )

    def _answer_again(
        self,
        visit: Visit,
        repeat: Repeat,
        served: Served,
        stages_s: Mapping[str, float],
        started: float,
    ) -> tuple[bytes, Headers]:
        """Return the answer to a request that came before byte for byte."""
        timing = timing_of(stages_s) if stages_s else None
        record, outcome = served.record, served.outcome
        vector = render_vector(served, repeat.form, None)
        total_s = time.perf_counter() - started
        self._count(visit, repeat.model, outcome, total_s)
        headers = hit_headers(outcome, record.created_at, record.expires_at, timing, total_s)
        return b"".join((repeat.head, vector, repeat.tail)), headers

    def _remember(
        self, namespace: Namespace, body: bytes, asked: Asked, answer: Answer, model: str
    ) -> None:
        if len(answer.served) > 1 or asked.dimensions is not None:
            return
        record = answer.served[0].record
        if frame := self._dialect.frame(model, record.tokens):
            self._repeats.put(namespace.id, body, Repeat(model, record.key, asked.form, *frame))

    def _count(self, visit: Visit, model: str, outcome: str, total_s: float) -> None:
        visit.model, visit.outcome = model, outcome
        self._answered[model].inc()
        self._durations[outcome].observe(total_s)

    def _pipeline_of(self, asked: Asked) -> EmbeddingPipeline:
        name = self._default_model if asked.model is None else asked.model
        pipeline = self._pipelines.get(name)
        if pipeline is None:
            served = sorted({known.model.name for known in self._pipelines.values()})
            raise BadRequest(
                f"the model {name[:100]!r} is not served here; served: {', '.join(served)}",
                status=404,
                param="model",
                code="model_not_found",
            )
        most = pipeline.model.dimensions
        if asked.dimensions is not None and not 1 <= asked.dimensions <= most:
            raise BadRequest(
                f"'dimensions' must be from 1 to {most} for this model", param="dimensions"
            )
        return pipeline
