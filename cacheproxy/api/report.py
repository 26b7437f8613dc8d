"""`POST /v1/cache/report`: a client reports a wrong hit, by the id in its answer.

The id is the answer's `X-Cacheproxy-Entry`. The entry is removed at once in every server. If it was
a semantic hit, the report is also a label. Only the caller's own namespace is searched.
"""

from typing import Annotated

import msgspec
from msgspec import Meta
from starlette.types import Receive, Scope, Send

from cacheproxy.api.callers import NAMESPACE, Callers, NamespaceName, named_in
from cacheproxy.api.connection import Watch, Watched
from cacheproxy.api.operation import Content, Operation, Reply
from cacheproxy.api.request.body import decode_json, read_body
from cacheproxy.api.response import REQUEST_ID, refusals, send_json
from cacheproxy.routes.chat.learning import Learning
from cacheproxy.telemetry.admin_log import tell_action
from cacheproxy.telemetry.request_trace import VISIT, Visit

_MOST_BODY_BYTES = 4_096
_SCORE_UNIT = 10_000
_ID = r"^[0-9a-f]{64}(-[0-9]{1,5})?$"


class ReportRequest(msgspec.Struct, forbid_unknown_fields=True):
    """A hit that was wrong."""

    id: Annotated[str, Meta(pattern=_ID, description="The `X-Cacheproxy-Entry` of the answer.")]
    namespace: Annotated[
        NamespaceName | None,
        Meta(description="Overrides `X-Cacheproxy-Namespace`, as in LiteLLM's `cache` field."),
    ] = None


class ReportResponse(msgspec.Struct):
    """The result of a report."""

    removed: Annotated[int, Meta(description="How many entries were removed.")]


REPORT = Operation(
    method="POST",
    path="/v1/cache/report",
    id="reportHit",
    tag="Chat",
    summary="Report that a hit was wrong",
    description="""
    Removes the entry in every server. If it was a semantic hit, the report also counts as evidence
    against the threshold.
    """,
    headers=(NAMESPACE, REQUEST_ID),
    body=Content(ReportRequest, {"A semantic hit": {"id": f"{'4f' * 32}-9812"}}),
    replies={
        200: Reply(
            "The entry was removed.", (Content(ReportResponse, {"Removed": {"removed": 1}}),)
        ),
        **refusals(
            *(400, 401, 404, 408, 413, 415, 500, 503),
            because={
                404: "The caller's namespace has no such entry.",
                503: "The entry could not be removed, because the store did not answer. Try again.",
            },
        ),
    },
)

_DECODER = msgspec.json.Decoder(ReportRequest)


def entry_id(key: bytes, score: float | None) -> bytes:
    """Return the id by which a hit can be reported; a semantic hit's contains its score."""
    name = key.hex().encode()
    return name if score is None else b"%b-%d" % (name, max(0, round(score * _SCORE_UNIT)))


class ReportEndpoint:
    """An ASGI application for the route."""

    def __init__(self, learning: Learning, callers: Callers, watch: Watch) -> None:
        self._learning = learning
        self._callers = callers
        self._watch = watch

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; raises `ApiError` before anything was sent."""
        visit: Visit = scope[VISIT]
        visit.route, headers = "report", visit.headers
        caller = self._callers.identify(headers)
        namespace = caller.namespace
        visit.namespace_id = namespace.id
        caller.need("purge")
        account = self._callers.account_of(caller, scope.get("client"))
        with Watched(self._watch, receive, account, caller.meter) as exchange:
            body = await read_body(headers, receive, max_bytes=_MOST_BODY_BYTES)
            exchange.body_has_come()
        report = decode_json(_DECODER, body)
        if report.namespace is not None:
            namespace = named_in(namespace.tenant, report.namespace, "'namespace'")
        key, _, score = report.id.partition("-")
        removed = await self._learning.report(
            namespace, bytes.fromhex(key), int(score) / _SCORE_UNIT if score else None
        )
        tell_action("report", caller.grant.key_id or "anybody", "done", removed=removed)
        await send_json(send, 200, msgspec.json.encode(ReportResponse(removed)), [])
