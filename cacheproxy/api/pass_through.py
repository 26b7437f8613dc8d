"""Everything else under `/v1`: passed to an upstream as it is, uncached, streamed, and counted.

One base URL then serves a whole pipeline: moderations, images, audio, files, batches. The upstream
is the one that has the model of a JSON body, else the first one.

Where several tenants share one key of ours, what an upstream stores (files, batches, responses)
would be open to all of them. In the mode `auto` only stateless calls pass then; `on` passes all.
"""

from collections.abc import Collection, Mapping
from typing import Literal

import msgspec
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from cacheproxy.api.callers import Callers
from cacheproxy.api.connection import Watch, Watched
from cacheproxy.api.request.body import read_body
from cacheproxy.api.response import status_of
from cacheproxy.errors import BadRequest, Forbidden
from cacheproxy.telemetry.metrics import Metrics
from cacheproxy.telemetry.request_trace import VISIT, Visit
from cacheproxy.upstreams.fallback import Upstreams

METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]

_ROUTE = "passthrough"

_STATELESS = ("moderations", "images/", "audio/", "tokenize", "detokenize", "score", "classify")
"""Beginnings of paths whose POST leaves nothing behind that another tenant could read."""

_OWN = (
    "embeddings",
    "chat/completions",
    "responses",
    "messages",
    "completions",
    "cache/report",
)
"""Paths of routes of ours, which are never passed on by another way than theirs."""

_DECODER = msgspec.json.Decoder(dict[str, object])


class PassThrough:
    """An ASGI application for all paths that no other route has."""

    def __init__(
        self,
        upstreams: Upstreams,
        callers: Callers,
        *,
        own: Collection[str],
        mode: Literal["auto", "on"],
        max_body_bytes: int,
        watch: Watch,
        metrics: Metrics,
    ) -> None:
        """Prepare; `own` are the paths below /v1 that other routes of this server have."""
        self._upstreams = upstreams
        self._own = {*_OWN, *own}
        self._callers = callers
        self._mode = mode
        self._max_body_bytes = max_body_bytes
        self._watch = watch
        self._requests = metrics.requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; raises `ApiError` before anything was sent."""
        visit: Visit = scope[VISIT]
        visit.route = _ROUTE
        try:
            await self._pass(scope, visit, receive, send)
        except Exception as error:
            if not visit.outcome:  # else the answer has begun and is counted
                self._requests.labels(_ROUTE, "", status_of(error)).inc()
            raise

    async def _pass(self, scope: Scope, visit: Visit, receive: Receive, send: Send) -> None:
        headers, method = visit.headers, scope["method"]
        caller = self._callers.identify(headers)
        visit.namespace_id = caller.namespace.id
        caller.need("write")
        path = scope["path"].removeprefix("/v1/")
        if path in self._own:
            # Served here if at all: with another method, or without an upstream that has chat.
            raise HTTPException(404) if method == "POST" else _not_allowed("POST")
        if path == "models" or path.startswith("models/"):
            raise _not_allowed("GET, HEAD")
        if ".." in path.split("/"):
            raise BadRequest("the path must not contain '..'")
        account = self._callers.account_of(caller, scope.get("client"))
        with Watched(self._watch, receive, account, caller.meter) as exchange:
            body = await read_body(
                headers, receive, max_bytes=self._max_body_bytes, reserve=exchange.take
            )
            exchange.body_has_come()
            if headers.get(b"content-type", b"").startswith(b"application/json"):
                exchange.take_parsed(body)
            upstream = self._upstreams.any_for(_model_of(headers, body))
            is_stateless = method == "POST" and path.startswith(_STATELESS)
            is_shared = self._mode == "auto" and self._callers.keys.has_several_tenants
            if is_shared and not (is_stateless or upstream.settings.pass_authorization):
                raise Forbidden(
                    "several tenants share the upstream's key, so that this call could reach "
                    "what others have stored there; upstream_passthrough = 'on' allows it"
                )
            # As it was sent: a decoded path could not be told from one with a query.
            target = scope["raw_path"].decode("latin-1").removeprefix("/v1/")
            if query := scope["query_string"].decode("latin-1"):
                target = f"{target}?{query}"
            response = await upstream.forward(method, target, body or None, headers)
        try:
            head = response.head
            visit.outcome, visit.status = "bypass", head.status
            self._requests.labels(_ROUTE, "", str(head.status)).inc()
            told = [
                (b"content-type", head.content_type or b"application/octet-stream"),
                *head.headers,
                (b"cache-status", b"cacheproxy; fwd=bypass; fwd-status=%d" % head.status),
            ]
            await send({"type": "http.response.start", "status": head.status, "headers": told})
            async for chunk in response.chunks():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            response.close()


def _not_allowed(methods: str) -> HTTPException:
    return HTTPException(405, headers={"Allow": methods})


def _model_of(headers: Mapping[bytes, bytes], body: bytes) -> str | None:
    """Return the model that a JSON body names, or None."""
    if not headers.get(b"content-type", b"").startswith(b"application/json"):
        return None
    try:
        model = _DECODER.decode(body).get("model")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return model if isinstance(model, str) else None
