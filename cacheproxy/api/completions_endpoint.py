"""`POST /v1/chat/completions`: from an HTTP request to the completions route and back.

A hit is rendered here, whole or as a stream. An upstream's answer is forwarded as it arrives.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from starlette.types import Receive, Scope, Send

from cacheproxy.api.callers import Callers
from cacheproxy.api.canaries import Canaries, Variant
from cacheproxy.api.connection import ClientGone, Watch, Watched
from cacheproxy.api.control import parse_control
from cacheproxy.api.litellm_control import merge_control, merge_namespace, read_cache_field
from cacheproxy.api.presentation import Headers, hit_headers, timing_of
from cacheproxy.api.repeated.at_once import EARLIER, Earlier, Later, WholeAnswer, repeat_of
from cacheproxy.api.repeated.repeats import Repeats
from cacheproxy.api.report import entry_id
from cacheproxy.api.request.body import read_body
from cacheproxy.api.response import JSON, error_body, status_of
from cacheproxy.errors import ApiError
from cacheproxy.keys import Namespace
from cacheproxy.routes.chat.models import ChatModels
from cacheproxy.routes.chat.record import CompletionRecord
from cacheproxy.routes.chat.savings import Savings
from cacheproxy.routes.chat.state import Cached, Passed
from cacheproxy.routes.completions import CompletionsRoute
from cacheproxy.routes.dialects.dialect import Dialect
from cacheproxy.routes.dialects.request import CompletionRequest
from cacheproxy.routes.exchange import DEFAULT_CONTROL, Control
from cacheproxy.routes.repeated import Repeated
from cacheproxy.telemetry.metrics import Metrics
from cacheproxy.telemetry.recorder import Recorder
from cacheproxy.telemetry.request_trace import VISIT, Visit

_SLOW_CLIENT_S = 60.0
"""The longest time for which a client may read nothing of its stream."""

_REPEAT_BYTES = 8_192
"""The longest request, bytes, that is recognised by its bytes; at most 4,096 are remembered."""

_EVENTS = (b"content-type", b"text/event-stream; charset=utf-8")


class _Repeat(NamedTuple):
    """What a byte-equal request asks for: an entry's key, and the form of the answer.

    `variant` counts it, if the model has a canary.
    """

    key: bytes
    form: str
    variant: Variant | None


class CompletionsEndpoint:
    """An ASGI application for one path.

    Attributes:
        max_temperature: requests with a higher one bypass the cache.
    """

    def __init__(
        self,
        dialect: Dialect,
        route: CompletionsRoute,
        models: ChatModels,
        savings: Savings,
        *,
        callers: Callers,
        canaries: Canaries,
        max_temperature: float,
        max_body_bytes: int,
        watch: Watch,
        metrics: Metrics,
        recorder: Recorder | None = None,
    ) -> None:
        self._dialect = dialect
        self._route = route
        self._models = models
        self._savings = savings
        self._callers = callers
        self.max_temperature = max_temperature
        self._max_body_bytes = max_body_bytes
        self._watch = watch
        self._canaries = canaries
        self._forget()
        canaries.forget_by(self._forget)
        self._recorder = recorder
        self._requests = metrics.requests
        self._tallies = metrics.tallies
        self._slow_clients = metrics.slow_clients_closed
        self._durations = {
            outcome: metrics.request_duration.labels(self._dialect.name, outcome)
            for outcome in ("hot", "exact", "semantic", "miss", "bypass")
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; raises `ApiError` before anything was sent."""
        visit: Visit = scope[VISIT]
        visit.route = self._dialect.name
        headers = visit.headers
        try:
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
                    self._recorder.put(self._dialect.name, namespace.id, body)
                repeated: Repeated[CompletionRecord] | None = None
                repeats = self._repeats  # canaries may change before the answer comes
                if control is DEFAULT_CONTROL and (repeat := repeats.get(namespace.id, body)):
                    visit.variant = repeat.variant
                    if cached := self._from_hot(repeat):
                        await self._send_cached(visit, cached, repeat.form, started, send)
                        return
                    repeated = earlier.repeated if earlier else None
                    repeated = repeated or await self._exact(visit, repeat)
                    if cached := _cached(repeated):
                        await self._send_cached(visit, cached, repeat.form, started, send)
                        return
                exchange.take_parsed(body)
                await self._answer(
                    visit, namespace, control, body, started, send, repeated, repeats
                )
        except Exception as error:
            if not visit.outcome:  # else it is counted: a stream that has begun has its status
                status = status_of(error)
                self._requests.labels(self._dialect.name, "", status).inc()
                if visit.variant is not None:
                    visit.variant.failed(status)
            raise

    def _forget(self) -> None:
        """Forget which model answered which request."""
        self._repeats = Repeats[_Repeat](most_bytes=_REPEAT_BYTES)

    def knows(self, body: bytes) -> bool:
        """Return whether the body came before, in any namespace."""
        return self._repeats.knows(body)

    def at_once(self, visit: Visit, body: bytes) -> WholeAnswer | Later | None:
        """Answer a byte-equal repeat, or have its entry looked up; None if it is not one."""
        repeat = repeat_of(visit, body, self._callers, self._repeats)
        if repeat is None:
            return None
        if cached := self._from_hot(repeat):
            return self._whole(visit, body, repeat, cached)
        return partial(self._look_up, visit, body, repeat)

    async def _look_up(self, visit: Visit, body: bytes, repeat: _Repeat) -> WholeAnswer | Earlier:
        repeated = await self._exact(visit, repeat)
        if cached := _cached(repeated):
            return self._whole(visit, body, repeat, cached)
        return Earlier(visit, repeated)

    def _whole(self, visit: Visit, body: bytes, repeat: _Repeat, cached: Cached) -> WholeAnswer:
        visit.route, visit.variant = self._dialect.name, repeat.variant
        if self._recorder is not None:
            self._recorder.put(self._dialect.name, visit.namespace_id, body)
        return self._answer_cached(visit, cached, repeat.form, visit.started)

    async def _exact(self, visit: Visit, repeat: _Repeat) -> Repeated[CompletionRecord]:
        answering = self._answering(repeat)
        return await self._route.repeated.from_exact(visit.namespace_id, repeat.key, answering)

    def _from_hot(self, repeat: _Repeat) -> Cached | None:
        entry = self._route.repeated.from_hot(repeat.key, self._answering(repeat))
        return None if entry is None else Cached(entry.record, "hot", entry, {})

    def _answering(self, repeat: _Repeat) -> Callable[[CompletionRecord], bool]:
        """Return what tells whether a record answers such a request."""
        route = self._route
        return route.is_fresh if repeat.form == "stream" else route.is_fresh_with_usage

    async def _answer(
        self,
        visit: Visit,
        namespace: Namespace,
        control: Control,
        body: bytes,
        started: float,
        send: Send,
        repeated: Repeated[CompletionRecord] | None,
        repeats: Repeats[_Repeat],
    ) -> None:
        request = self._dialect.parse(body, max_temperature=self.max_temperature)
        asked, inside = control, namespace
        if request.cache:
            cache = read_cache_field(request.cache)
            asked, inside = merge_control(control, cache), merge_namespace(namespace, cache)
            visit.namespace_id = inside.id
        choice = self._canaries.choose(request.model, inside.id, asked.variant)
        if choice is not None:
            visit.variant = choice.variant
            if choice.model != request.model:
                request = self._ask_instead(choice.model, request)
        answer = await self._route.serve(request, inside, asked, visit.headers, repeated)
        if isinstance(answer, Passed):
            with answer.reader:
                await self._send_passed(visit, answer, request, asked, started, send)
            return
        form = _form_of(request)
        is_always_the_same = asked is DEFAULT_CONTROL and not request.cache
        if (
            answer.outcome in {"hot", "exact"}
            and is_always_the_same
            and self._route.is_shared(request)
        ):
            repeats.put(namespace.id, body, _Repeat(answer.record.key, form, visit.variant))
        await self._send_cached(visit, answer, form, started, send)

    def _ask_instead(self, model: str, request: CompletionRequest) -> CompletionRequest:
        body = request.body_for(model)
        asked = self._dialect.parse(body, max_temperature=self.max_temperature)
        return replace(asked, cache=request.cache)

    async def _send_cached(
        self, visit: Visit, cached: Cached, form: str, started: float, send: Send
    ) -> None:
        body, headers = self._answer_cached(visit, cached, form, started)
        if form == "plain":
            headers.append((b"content-length", b"%d" % len(body)))
        await _begin(send, 200, headers)
        await send({"type": "http.response.body", "body": body})

    def _answer_cached(
        self, visit: Visit, cached: Cached, form: str, started: float
    ) -> WholeAnswer:
        """Return the answer that a hit makes, and count it."""
        body = self._render(cached, form)
        total_s = time.perf_counter() - started
        self._count(visit, cached.record.model, cached.outcome, 200, total_s)
        record = cached.record
        self._savings.served(record, self._models.label_of(record.model))
        content_type = JSON if form == "plain" else _EVENTS
        return WholeAnswer(body, [content_type, *_cached_headers(cached, total_s)])

    def _render(self, cached: Cached, form: str) -> bytes:
        """Return the completion in the requested form; a hot entry keeps the rendering."""
        body = cached.record.body
        if form == "plain":
            return body
        entry = cached.hot_entry
        events = entry.rendered.get(form) if entry is not None else None
        if events is None:
            events = self._dialect.replay(body, with_usage=form == "stream+usage")
            if entry is not None and cached.outcome == "hot":
                entry.remember(form, events)
        return events

    async def _send_passed(
        self,
        visit: Visit,
        passed: Passed,
        request: CompletionRequest,
        control: Control,
        started: float,
        send: Send,
    ) -> None:
        head = passed.head
        total_s = time.perf_counter() - started
        outcome = "bypass" if passed.is_bypass else "miss"
        self._count(visit, request.model, outcome, head.status, total_s)
        headers = [
            (b"content-type", head.content_type or b"application/json"),
            *head.headers,
            *_passed_headers(passed, control, total_s),
        ]
        if head.status >= 400:
            headers.append((b"x-request-id", visit.request_id))
        if request.form == "plain" or head.status != 200:
            body = await passed.reader.body()
            await _begin(send, head.status, [(b"content-length", b"%d" % len(body)), *headers])
            await send({"type": "http.response.body", "body": body})
            return
        await _begin(send, head.status, headers)
        try:
            async for part in passed.reader.parts():
                await self._send_part(send, part)
        except ApiError as error:
            # The response has begun with 200, so the error can only be sent as part of the stream.
            event = self._dialect.error_event(dict(error_body(error)["error"]))
            await self._send_part(send, event)
        await send({"type": "http.response.body", "body": b""})

    async def _send_part(self, send: Send, part: bytes) -> None:
        try:
            async with asyncio.timeout(_SLOW_CLIENT_S):
                await send({"type": "http.response.body", "body": part, "more_body": True})
        except TimeoutError:
            self._slow_clients.inc()
            raise ClientGone from None

    def _count(self, visit: Visit, model: str, outcome: str, status: int, total_s: float) -> None:
        visit.model, visit.outcome = self._models.label_of(model), outcome
        visit.status = status
        self._requests.labels(self._dialect.name, visit.model, str(status)).inc()
        self._tallies.of(visit.model, visit.namespace_id).answers[outcome] += 1
        self._durations[outcome].observe(total_s, visit.sampled_trace)
        if visit.variant is not None:
            visit.variant.answered(status, outcome, total_s)


def _cached(repeated: Repeated[CompletionRecord]) -> Cached | None:
    if not repeated.is_hit or repeated.found is None:
        return None
    record, entry = repeated.found
    return Cached(record, "exact", entry, repeated.stages_s)


def _form_of(request: CompletionRequest) -> str:
    if request.form == "stream" and request.wants_usage:
        return "stream+usage"
    return request.form


def _cached_headers(cached: Cached, total_s: float) -> Headers:
    record = cached.record
    timing = timing_of(cached.stages_s) if cached.stages_s else None
    headers = hit_headers(cached.outcome, record.created_at, record.fresh_until, timing, total_s)
    if cached.failed_with is not None:
        headers[0] = (b"cache-status", _stale_status(cached))
    headers.append((b"x-cacheproxy-entry", entry_id(record.key, cached.score)))
    if cached.score is not None:
        headers.append((b"x-cacheproxy-similarity", b"%.4f" % cached.score))
    return headers


def _stale_status(cached: Cached) -> bytes:
    """Return the Cache-Status of a stale entry that is served instead of an upstream's error."""
    ttl_s = cached.record.fresh_until - time.time()
    return b"cacheproxy; fwd=stale; fwd-status=%d; ttl=%d; detail=stale-if-error" % (
        cached.failed_with or 0,
        ttl_s,
    )


def _passed_headers(passed: Passed, control: Control, total_s: float) -> Headers:
    if passed.is_bypass:
        parts = ["cacheproxy", "fwd=bypass" if not control.no_store else "fwd=request"]
    else:
        parts = ["cacheproxy", "fwd=miss" if control.reads else "fwd=request"]
    if passed.head.status != 200:
        parts.append(f"fwd-status={passed.head.status}")
    flight = passed.reader.flight
    if flight.is_stored:
        parts.append("stored")
    if passed.collapsed:
        parts.append("collapsed")
    timing = b"%b, total;dur=%.3f" % (timing_of(passed.stages_s), total_s * 1000)
    return [(b"cache-status", "; ".join(parts).encode()), (b"server-timing", timing)]


async def _begin(send: Send, status: int, headers: Headers) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
