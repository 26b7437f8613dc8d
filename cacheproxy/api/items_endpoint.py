"""The endpoint of items routes: from an HTTP request to the route and back.

The caller is identified before the body is read, limits are checked before any work, and the answer
names the tier that it came from.
"""

import time
from collections.abc import Mapping
from functools import partial
from typing import Generic, NamedTuple

from starlette.types import Receive, Scope, Send

from cacheproxy.api.callers import Callers
from cacheproxy.api.canaries import Canaries, Variant
from cacheproxy.api.connection import Watch, Watched
from cacheproxy.api.control import parse_control
from cacheproxy.api.dialects.protocol import A, Dialect, Frame, Preparation, R
from cacheproxy.api.presentation import (
    Body,
    Headers,
    cache_headers,
    counts_of,
    hit_headers,
    outcome_of,
    timing_of,
)
from cacheproxy.api.repeated.at_once import EARLIER, Earlier, Later, WholeAnswer, repeat_of
from cacheproxy.api.repeated.repeats import Repeats
from cacheproxy.api.request.body import read_body
from cacheproxy.api.response import JSON, send_json, status_of
from cacheproxy.errors import BadRequest
from cacheproxy.routes.exchange import (
    DEFAULT_CONTROL,
    ItemsRequest,
    ItemsResult,
    ModelInfo,
    Served,
)
from cacheproxy.routes.items import ItemsRoute
from cacheproxy.routes.repeated import Repeated
from cacheproxy.telemetry.metrics import Metrics
from cacheproxy.telemetry.recorder import Recorder
from cacheproxy.telemetry.request_trace import VISIT, Visit


class _Repeat(NamedTuple, Generic[R]):
    """What a byte-equal request asks for.

    Attributes:
        model: the model's name in the answer.
        key: the entry's key [32 bytes].
        frame: what surrounds the result in the answer.
        variant: what counts it, if the model that was asked for has a canary.
    """

    model: str
    key: bytes
    frame: Frame[R]
    variant: Variant | None


class ItemsEndpoint(Generic[A, R]):
    """An ASGI application for one path.

    `name` is the route's label in the metrics. `routes` holds each model under its name and every
    alias; `default_model` serves requests that name no model.
    """

    def __init__(
        self,
        name: str,
        dialect: Dialect[A, R],
        preparation: Preparation[A],
        *,
        routes: Mapping[str, ItemsRoute[R]],
        default_model: str,
        callers: Callers,
        canaries: Canaries,
        max_body_bytes: int,
        watch: Watch,
        metrics: Metrics,
        recorder: Recorder | None = None,
    ) -> None:
        self._name = name
        self._dialect = dialect
        self._preparation = preparation
        self._routes = routes
        self._default_model = default_model
        self._callers = callers
        self._max_body_bytes = max_body_bytes
        self._watch = watch
        self._canaries = canaries
        self._forget()
        canaries.forget_by(self._forget)
        self._recorder = recorder
        self._requests = metrics.requests
        self._tallies = metrics.tallies
        self._answered = {
            one.model.name: metrics.requests.labels(name, one.model.name, "200")
            for one in routes.values()
        }
        self._durations = {
            outcome: metrics.request_duration.labels(name, outcome)
            for outcome in ("hot", "exact", "semantic", "miss", "mixed")
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; raises `ApiError` before anything was sent."""
        visit: Visit = scope[VISIT]
        visit.route = self._name
        try:
            body, headers = await self._answer(visit, scope, receive)
        except Exception as error:
            # Without a model's name: the request may have named an unknown model.
            status = status_of(error)
            self._requests.labels(self._name, "", status).inc()
            if visit.variant is not None:
                visit.variant.failed(status)
            raise
        await send_json(send, 200, body, headers)

    def _forget(self) -> None:
        """Forget which model answered which request."""
        self._repeats = Repeats[_Repeat[R]]()

    def knows(self, body: bytes) -> bool:
        """Return whether the body came before, in any namespace."""
        return self._repeats.knows(body)

    def at_once(self, visit: Visit, body: bytes) -> WholeAnswer | Later | None:
        """Answer a byte-equal repeat, or have its entry looked up; None if it is not one."""
        repeat = repeat_of(visit, body, self._callers, self._repeats)
        if repeat is None:
            return None
        if answer := self._from_hot(visit, repeat, visit.started):
            return self._whole(visit, body, answer)
        return partial(self._look_up, visit, body, repeat)

    async def _look_up(
        self, visit: Visit, body: bytes, repeat: _Repeat[R]
    ) -> WholeAnswer | Earlier:
        repeated = await self._exact(visit, repeat)
        if answer := self._from_exact(visit, repeat, repeated, visit.started):
            return self._whole(visit, body, answer)
        return Earlier(visit, repeated)

    def _whole(self, visit: Visit, body: bytes, answer: tuple[bytes, Headers]) -> WholeAnswer:
        visit.route = self._name
        if self._recorder is not None:
            self._recorder.put(self._name, visit.namespace_id, body)
        rendered, told = answer
        return WholeAnswer(rendered, [JSON, *told])

    async def _answer(self, visit: Visit, scope: Scope, receive: Receive) -> tuple[Body, Headers]:
        headers = visit.headers
        caller = self._callers.identify(headers)
        namespace = caller.namespace
        visit.namespace_id = namespace.id
        control = parse_control(headers)
        if not caller.is_free:
            control = caller.restrict(control)
        account = self._callers.account_of(caller, scope.get("client"))
        with Watched(self._watch, receive, account, caller.meter) as exchange:
            body = await read_body(
                headers, receive, max_bytes=self._max_body_bytes, reserve=exchange.take
            )
            exchange.body_has_come()
            earlier: Earlier | None = scope.get(EARLIER)
            started = visit.started if earlier else time.perf_counter()
            if self._recorder is not None:
                self._recorder.put(self._name, namespace.id, body)
            repeated: Repeated[R] | None = None
            repeats = self._repeats  # canaries may change before the answer comes
            if control is DEFAULT_CONTROL and (repeat := repeats.get(namespace.id, body)):
                if hot := self._from_hot(visit, repeat, started):
                    return hot
                repeated = earlier.repeated if earlier else None
                repeated = repeated or await self._exact(visit, repeat)
                if hit := self._from_exact(visit, repeat, repeated, started):
                    return hit
            exchange.take_parsed(body)
            asked = self._dialect.parse(body)
            route = self._route_of(asked.model)
            choice = self._canaries.choose(route.model.name, namespace.id, control.variant)
            if choice is not None:
                route, visit.variant = self._routes[choice.model], choice.variant
            inputs, warnings = await self._preparation.prepare(asked, route.model, account)
            answer = await route.serve(ItemsRequest(namespace, inputs, control), repeated)
        total_s = time.perf_counter() - started
        model = route.model
        outcome = outcome_of(answer)
        self._count(visit, model.name, outcome, total_s)
        answers = self._tallies.of(model.name, namespace.id).answers
        for one in answer.served:
            answers[one.outcome] += 1
        if len(answer.served) > 1:
            visit.texts = counts_of(answer.served)
        if outcome in {"hot", "exact"} and control is DEFAULT_CONTROL:
            self._remember(repeats, visit, body, asked, answer, model)
        return (
            await self._dialect.render(asked, answer, model, total_s),
            cache_headers(answer, outcome, control, total_s) + warnings,
        )

    def _from_hot(
        self, visit: Visit, repeat: _Repeat[R], started: float
    ) -> tuple[bytes, Headers] | None:
        entry = self._routes[repeat.model].repeated.from_hot(repeat.key)
        if entry is None:
            return None
        return self._answer_again(visit, repeat, Served(entry.record, "hot", entry), {}, started)

    async def _exact(self, visit: Visit, repeat: _Repeat[R]) -> Repeated[R]:
        lookup = self._routes[repeat.model].repeated
        return await lookup.from_exact(visit.namespace_id, repeat.key)

    def _from_exact(
        self, visit: Visit, repeat: _Repeat[R], repeated: Repeated[R], started: float
    ) -> tuple[bytes, Headers] | None:
        if not repeated.is_hit or repeated.found is None:
            return None
        served = Served(repeated.found.record, "exact", repeated.found.hot_entry)
        return self._answer_again(visit, repeat, served, repeated.stages_s, started)

    def _answer_again(
        self,
        visit: Visit,
        repeat: _Repeat[R],
        served: Served[R],
        stages_s: Mapping[str, float],
        started: float,
    ) -> tuple[bytes, Headers]:
        """Return the answer to a byte-equal repeat of an earlier request."""
        timing = timing_of(stages_s) if stages_s else None
        record, outcome = served.record, served.outcome
        body = repeat.frame.fill(served)
        visit.variant = repeat.variant
        total_s = time.perf_counter() - started
        self._count(visit, repeat.model, outcome, total_s)
        self._tallies.of(repeat.model, visit.namespace_id).answers[outcome] += 1
        headers = hit_headers(outcome, record.created_at, record.expires_at, timing, total_s)
        return body, headers

    def _remember(
        self,
        repeats: Repeats[_Repeat[R]],
        visit: Visit,
        body: bytes,
        asked: A,
        answer: ItemsResult[R],
        model: ModelInfo,
    ) -> None:
        if len(answer.served) > 1:
            return
        record = answer.served[0].record
        if frame := self._dialect.frame(asked, model, record):
            repeat = _Repeat(model.name, record.key, frame, visit.variant)
            repeats.put(visit.namespace_id, body, repeat)

    def _count(self, visit: Visit, model: str, outcome: str, total_s: float) -> None:
        visit.model, visit.outcome = model, outcome
        self._answered[model].inc()
        self._durations[outcome].observe(total_s, visit.sampled_trace)
        if visit.variant is not None:
            visit.variant.answered(200, outcome, total_s)

    def _route_of(self, model: str | None) -> ItemsRoute[R]:
        name = self._default_model if model is None else model
        route = self._routes.get(name)
        if route is None:
            served = sorted({one.model.name for one in self._routes.values()})
            raise BadRequest(
                f"the model {name[:100]!r} is not served here; served: {', '.join(served)}",
                status=404,
                param="model",
                code="model_not_found",
            )
        return route
