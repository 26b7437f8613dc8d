"""The admin listener: figures, a page that shows them, purges and reloads, for operators.

A foreign page in an operator's browser must not be able to use the listener. If a token is set, the
page does not know it. Without a token, which is allowed on loopback only, requests made by pages
are refused: those with an `Origin`, and those whose `Host` is not a name of this machine
(`operators`). The listener's own page is public: it contains no figures and asks for the token. So
are the probes of liveness and readiness: they are answered here when the public listener has all
the connections that it may have.
"""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from cacheproxy.admin.chat_report import Named
from cacheproxy.admin.entries import EntryFinder, FindRequest
from cacheproxy.admin.namespaces import NAMES, Namespaces, read_namespaces
from cacheproxy.admin.operations import (
    ADMIN,
    FIND,
    LIVE,
    NAMESPACES,
    PURGE,
    RELOAD,
    REQUESTS,
    STATS,
    THRESHOLDS,
    WORKERS,
    WRONG_HITS,
    PurgeRequest,
    PurgeResponse,
)
from cacheproxy.admin.operators import Operator, Operators
from cacheproxy.admin.page import PAGE, TO_PAGE, page, to_page
from cacheproxy.admin.reloading import Reloaded
from cacheproxy.admin.report import ServerFigures
from cacheproxy.admin.workers import AllWorkers
from cacheproxy.api.edge import Edge
from cacheproxy.api.request.body import decode_json, read_body
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
from cacheproxy.telemetry.history import MetricsSource
from cacheproxy.telemetry.journal import Journal
from cacheproxy.telemetry.request_trace import VISIT, Visit

T = TypeVar("T")

_MOST_BODY_BYTES = 256 * 1024

_OPERATOR = "cacheproxy.operator"
"""Key of the operator in a request's ASGI scope."""

_PURGES = msgspec.json.Decoder(PurgeRequest)
_FINDS = msgspec.json.Decoder(FindRequest)


def make_admin_app(
    store: Store,
    finder: EntryFinder,
    describe: Callable[[], Awaitable[ServerFigures]],
    metrics: MetricsSource,
    workers: AllWorkers,
    reload: Callable[[str], Awaitable[Reloaded]],
    journal: Journal,
    *,
    named: Named,
    operators: Operators,
    not_ready_because: Callable[[], str | None],
    needs_key: bool,
) -> Edge:
    """Return the application.

    Args:
        store: the store to purge.
        finder: finds entries, and the keys of a text that is to be purged.
        describe: returns the figures; may raise `StoreError`.
        metrics: of all workers.
        workers: what each worker answers.
        reload: takes the settings as they are now; may raise `ConfigError`.
        journal: logs the requests.
        named: the namespaces that settings name.
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
        return _json(await workers.thresholds())

    async def live(request: Request) -> Response:
        try:
            since = float(request.query_params.get("since", "0"))
        except ValueError:
            raise BadRequest("'since' must be a time in seconds", param="since") from None
        return Response(await metrics.recent(since), media_type="application/json")

    async def namespaces(_: Request) -> Response:
        return _json(Namespaces(read_namespaces(await metrics.families(NAMES), named)))

    async def all_workers(_: Request) -> Response:
        return _json(await workers.figures())

    async def requests(_: Request) -> Response:
        return _json(await workers.requests())

    async def wrong_hits(_: Request) -> Response:
        return _json(await workers.wrong_hits())

    async def find(request: Request) -> Response:
        order = await _read(request, "find", _FINDS)
        namespace = Namespace(order.tenant, order.namespace)
        operator, kind = _begin(request, namespace), order.kind
        facts = {"tenant": order.tenant, "namespace": short_id(namespace.id), "what": kind}
        try:
            found = await finder.find(order)
        except StoreError as error:
            tell_action("find", operator.id, "failed", **facts)
            raise Unavailable(f"the store did not answer: {error}") from error
        tell_action("find", operator.id, "done", **facts, found=len(found.entries))
        return _json(found)

    async def purge(request: Request) -> Response:
        order = await _read(request, "purge", _PURGES)
        namespace = Namespace(order.tenant, order.namespace)
        operator = _begin(request, namespace)
        facts = {"tenant": order.tenant, "namespace": short_id(namespace.id), "what": order.kind}
        try:
            operator.check(purges=order.tenant)
            scopes = order.scopes(namespace.id, finder.keys_of)
            # What is not stored yet would be kept from it, and not be counted.
            await finder.written(namespace.id, [scope.key for scope in scopes if scope.key])
            removed = sum([await store.purge(scope) for scope in scopes])
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
        (NAMESPACES, namespaces),
        (WORKERS, all_workers),
        (REQUESTS, requests),
        (WRONG_HITS, wrong_hits),
        (FIND, find),
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
        operator = None
        try:
            operator = scope[_OPERATOR] = operators.identify(scope[VISIT].headers)
            if scope["path"] != PURGE.path:
                operator.check()
        except ApiError:
            if scope["method"] != "GET":
                tell_action(scope["method"], operator.id if operator else "unknown", "refused")
            raise

    return Edge(described_routes(ADMIN, table, needs_key=needs_key), journal, check)


async def _read(request: Request, name: str, decoder: msgspec.json.Decoder[T]) -> T:
    """Return what a POST asks for; `name` is its route's in the log."""
    visit: Visit = request.scope[VISIT]
    visit.route, headers = name, visit.headers
    if headers.get(b"content-type", b"").partition(b";")[0].strip() != b"application/json":
        raise BadRequest("the content type must be application/json", status=415)
    body = await read_body(headers, request.receive, max_bytes=_MOST_BODY_BYTES)
    return decode_json(decoder, body)


def _begin(request: Request, namespace: Namespace) -> Operator:
    """Note the namespace of a request; return who makes it."""
    request.scope[VISIT].namespace_id = namespace.id
    operator: Operator = request.scope[_OPERATOR]
    return operator


def _json(value: Any) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")
