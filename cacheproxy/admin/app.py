"""The admin listener: figures, a page that shows them, purges and reloads, for operators.

A foreign page in an operator's browser must not be able to use the listener. If a token is set, the
page does not know it. Without a token, which is allowed on loopback only, requests made by pages
are refused: those with an `Origin`, and those whose `Host` is not a name of this machine
(`operators`). The listener's own page is public: it contains no figures and asks for the token. So
are the probes of liveness and readiness: they are answered here when the public listener has all
the connections that it may have.
"""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from cacheproxy.admin.operators import Operator, Operators
from cacheproxy.admin.page import PAGE, TO_PAGE, page, to_page
from cacheproxy.admin.reloading import Reloaded
from cacheproxy.admin.report import KeysOf, ServerFigures, Target, Thresholds
from cacheproxy.api.edge import Edge
from cacheproxy.api.openapi import About
from cacheproxy.api.operation import Content, Operation, Parameter, Reply
from cacheproxy.api.request.body import decode_json, read_body
from cacheproxy.api.response import REQUEST_ID, refusals
from cacheproxy.api.service import (
    HEALTHZ,
    OPENAPI,
    READYZ,
    described_routes,
    healthz,
    readyz_endpoint,
)
from cacheproxy.errors import ApiError, BadRequest, ConfigError, StoreError, Unavailable
from cacheproxy.keys import Namespace, short_id
from cacheproxy.stores.protocol import Store
from cacheproxy.telemetry.admin_log import tell_action
from cacheproxy.telemetry.history import Recent
from cacheproxy.telemetry.journal import Journal
from cacheproxy.telemetry.request_trace import VISIT, Visit

_MOST_BODY_BYTES = 256 * 1024

_OPERATOR = "cacheproxy.operator"
"""Key of the operator in a request's ASGI scope."""


class PurgeRequest(Target, kw_only=True):
    """A namespace, and which of its entries to purge: exactly one of key, text, tag and all."""

    tenant: Annotated[str, Meta(description="The namespace's tenant; `default` without API keys.")]
    namespace: Annotated[str, Meta(description="The namespace's name, such as `default`.")]


# `Target.scopes` checks this: exactly one thing is named, and a query has a text.
_NamesOne = Annotated[
    PurgeRequest,
    Meta(
        extra_json_schema={
            "oneOf": [
                *(
                    {"required": [name], "properties": {name: {"type": "string"}}}
                    for name in ("key", "text", "tag")
                ),
                {"required": ["all"], "properties": {"all": {"const": True}}},
            ],
            "anyOf": [
                {"properties": {"query": {"type": "null"}}},
                {"required": ["text"], "properties": {"text": {"type": "string"}}},
            ],
        }
    ),
]


class PurgeResponse(msgspec.Struct):
    """The result of a purge."""

    removed: Annotated[int, Meta(description="How many entries were removed.")]


ADMIN = About(
    "cacheproxy, admin listener",
    "Figures, purges and reloads, for operators. It has a port of its own (`admin.port`).",
    "The setting `admin.token`, or an API key with the scope `admin` (to purge the entries of its "
    "own tenant: `purge`). Without any of these, only clients on the same machine are served.",
)

_ERRORS = refusals(401, 403, 500)

_SINCE = Parameter(
    "since", float, "Unix time in seconds: only samples taken after it are returned.", example=0
)

STATS = Operation(
    method="GET",
    path="/admin/stats",
    id="getStats",
    tag="ServerFigures",
    summary="Get the server's figures",
    description="The contents of the tiers and the store, and the state of the semantic tier.",
    replies={
        200: Reply("The figures.", (Content(ServerFigures),)),
        **_ERRORS,
        **refusals(503, because={503: "The store did not answer."}),
    },
)

THRESHOLDS = Operation(
    method="GET",
    path="/admin/thresholds",
    id="getThresholds",
    tag="ServerFigures",
    summary="Get the semantic tier's thresholds",
    description="By model and namespace: the evidence, its bound on the error, what it permits.",
    replies={200: Reply("The thresholds.", (Content(Thresholds),)), **_ERRORS},
)

LIVE = Operation(
    method="GET",
    path="/admin/live",
    id="getLive",
    tag="ServerFigures",
    summary="Get the samples of the last ten minutes",
    description="Counters and gauges of all workers, every two seconds, for the page.",
    query=(_SINCE,),
    replies={
        200: Reply("The samples.", (Content(Recent),)),
        **_ERRORS,
        **refusals(400, 503, because={503: "The other workers' metrics are not available."}),
    },
)

PURGE = Operation(
    method="POST",
    path="/admin/purge",
    id="purge",
    tag="Purges",
    summary="Remove entries from all servers on the store",
    description="The response is sent when all are removed. A failed purge can be repeated.",
    headers=(REQUEST_ID,),
    body=Content(
        _NamesOne,
        {
            "By tag": {"tenant": "default", "namespace": "default", "tag": "release:1.2"},
            "All": {"tenant": "default", "namespace": "default", "all": True},
        },
    ),
    replies={
        200: Reply(
            "The entries were removed.", (Content(PurgeResponse, {"Gone": {"removed": 3}}),)
        ),
        **_ERRORS,
        **refusals(
            *(400, 413, 415, 503),
            because={503: "The store did not answer; the purge must be repeated."},
        ),
    },
)

RELOAD = Operation(
    method="POST",
    path="/admin/reload",
    id="reload",
    tag="Settings",
    summary="Take the settings as they are now",
    description="Reads the settings file again, and the file of API keys. All workers take what "
    "has changed, or none does; settings that need a restart stay what they are and are named.",
    headers=(REQUEST_ID,),
    replies={
        200: Reply(
            "The settings were taken.",
            (
                Content(
                    Reloaded,
                    {
                        "A longer life": {
                            "changed": ["cache.ttl_s"],
                            "needs_restart": [],
                            "settings_hash": "0123456789ab",
                        }
                    },
                ),
            ),
        ),
        **_ERRORS,
        **refusals(
            *(422, 503),
            because={
                422: "The settings are invalid, as the message says; nothing has changed.",
                503: "The supervisor of the workers did not answer.",
            },
        ),
    },
)

_DECODER = msgspec.json.Decoder(PurgeRequest)


def make_admin_app(
    store: Store,
    keys_of: KeysOf,
    describe: Callable[[], Awaitable[ServerFigures]],
    describe_thresholds: Callable[[], Thresholds],
    recent: Callable[[float], Awaitable[bytes]],
    reload: Callable[[str], Awaitable[Reloaded]],
    journal: Journal,
    *,
    operators: Operators,
    not_ready_because: Callable[[], str | None],
    needs_key: bool,
) -> Edge:
    """Return the application.

    Args:
        store: the store to purge.
        keys_of: returns the keys of a text that is to be purged.
        describe: returns the figures; may raise `StoreError`.
        describe_thresholds: returns the semantic tier's figures, by namespace.
        recent: returns the samples taken after a time (Unix, seconds) as JSON, for the page.
        reload: takes the settings as they are now; may raise `ConfigError`.
        journal: logs the requests.
        operators: recognises who may use it.
        not_ready_because: returns why the server should get no new requests, or None.
        needs_key: whether the document says that a token is needed.
    """

    async def stats(_: Request) -> Response:
        try:
            return _json(await describe())
        except StoreError as error:
            raise Unavailable(f"the store did not answer: {error}") from error

    async def thresholds(_: Request) -> Response:
        return _json(describe_thresholds())

    async def live(request: Request) -> Response:
        try:
            since = float(request.query_params.get("since", "0"))
        except ValueError:
            raise BadRequest("'since' must be a time in seconds", param="since") from None
        return Response(await recent(since), media_type="application/json")

    async def purge(request: Request) -> Response:
        visit: Visit = request.scope[VISIT]
        visit.route, headers = "purge", visit.headers
        if headers.get(b"content-type", b"").partition(b";")[0].strip() != b"application/json":
            raise BadRequest("the content type must be application/json", status=415)
        body = await read_body(headers, request.receive, max_bytes=_MOST_BODY_BYTES)
        order = decode_json(_DECODER, body)
        namespace = Namespace(order.tenant, order.namespace)
        visit.namespace_id = namespace.id
        operator: Operator = request.scope[_OPERATOR]
        facts = {"tenant": order.tenant, "namespace": short_id(namespace.id), "what": order.kind}
        try:
            operator.check(purges=order.tenant)
            removed = sum([await store.purge(one) for one in order.scopes(namespace.id, keys_of)])
        except StoreError as error:
            tell_action("purge", operator.id, "incomplete", **facts)
            raise Unavailable(f"the purge is incomplete; repeat it: {error}") from error
        except ApiError:
            tell_action("purge", operator.id, "refused", **facts)
            raise
        tell_action("purge", operator.id, "done", **facts, removed=removed)
        return _json(PurgeResponse(removed))

    async def reload_settings(request: Request) -> Response:
        request.scope[VISIT].route = "reload"
        operator: Operator = request.scope[_OPERATOR]
        try:
            return _json(await reload(operator.id))
        except ConfigError as error:
            raise BadRequest(str(error), status=422, code="invalid_settings") from error

    table = [
        (TO_PAGE, to_page),
        (PAGE, page),
        (LIVE, live),
        (STATS, stats),
        (THRESHOLDS, thresholds),
        (PURGE, purge),
        (RELOAD, reload_settings),
        (HEALTHZ, healthz),
        (READYZ, readyz_endpoint(not_ready_because)),
    ]

    open_paths = {
        each.path
        for each in (*(operation for operation, _ in table), OPENAPI)
        if not each.takes_key
    }

    def check(scope: Scope) -> None:
        if scope["path"] in open_paths:
            return
        try:
            operator = scope[_OPERATOR] = operators.identify(scope[VISIT].headers)
            if scope["path"] != PURGE.path:
                operator.check()
        except ApiError:
            if scope["method"] != "GET":
                tell_action(scope["method"], "unknown", "refused")
            raise

    return Edge(described_routes(ADMIN, table, needs_key=needs_key), journal, check)


def _json(value: Any) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")
