"""`POST /v1/cache/report`: a client says that a hit was wrong, by the id in its answer.

The id is the answer's `X-Cacheproxy-Entry`. The entry is gone at once, in every server, and if it
had been served by likeness, the report is a label. Only the caller's own namespace is looked into.
"""

import re

import msgspec
from starlette.types import Receive, Scope, Send

from cacheproxy.api.body import decode_json, read_body
from cacheproxy.api.callers import Callers, named_in
from cacheproxy.api.connection import Watch, Watched
from cacheproxy.api.response import send_json
from cacheproxy.errors import BadRequest
from cacheproxy.routes.chat.learning import Learning
from cacheproxy.telemetry.request_trace import VISIT, Visit

_MOST_BODY_BYTES = 4_096
_ID = re.compile(r"([0-9a-f]{64})(?:-([0-9]{1,5}))?")
_SCORE_UNIT = 10_000


class _Report(msgspec.Struct, forbid_unknown_fields=True):
    id: str
    namespace: str | None = None


_DECODER = msgspec.json.Decoder(_Report)


def entry_id(key: bytes, score: float | None) -> bytes:
    """Return the id by which a hit can be reported; with the neighbour's score if it had one."""
    name = key.hex().encode()
    return name if score is None else b"%b-%d" % (name, max(0, round(score * _SCORE_UNIT)))


class ReportEndpoint:
    """An ASGI application for the route."""

    def __init__(self, learning: Learning, callers: Callers, body_timeout_s: float) -> None:
        self._learning = learning
        self._callers = callers
        self._watch = Watch(body_timeout_s=body_timeout_s)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; raises `ApiError` before anything was sent."""
        visit: Visit = scope[VISIT]
        visit.route, headers = "report", visit.headers
        namespace = self._callers.identify(headers)
        visit.namespace_id = namespace.id
        with Watched(self._watch, receive) as exchange:
            body = await read_body(headers, receive, max_bytes=_MOST_BODY_BYTES)
            exchange.body_has_come()
        report = decode_json(_DECODER, body)
        if report.namespace is not None:
            namespace = named_in(namespace.tenant, report.namespace, "'namespace'")
        found = _ID.fullmatch(report.id)
        if found is None:
            raise BadRequest("'id' must be an answer's X-Cacheproxy-Entry", param="id")
        score = None if found.group(2) is None else int(found.group(2)) / _SCORE_UNIT
        removed = await self._learning.report(namespace, bytes.fromhex(found.group(1)), score)
        await send_json(send, 200, msgspec.json.encode({"removed": removed}), [])
