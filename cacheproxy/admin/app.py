"""The admin listener: figures, a page that shows them, and purges, for operators, who stand above
tenants.

A browser that runs somebody else's page must not be able to drive it. With a token it cannot, as it
does not know it. Without one, which is possible on loopback only, requests that a page has made
are refused: by their `Origin`, and by a `Host` that is a name which somebody has pointed here. The
page itself anybody may have: it holds no figures, and asks for the token.
"""

import hmac
from collections.abc import Awaitable, Callable, Mapping
from ipaddress import ip_address
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from cacheproxy.admin.page import PAGE_PATHS, page, to_page
from cacheproxy.admin.report import KeysOf, Target
from cacheproxy.api.body import decode_json, read_body
from cacheproxy.api.edge import Edge
from cacheproxy.api.response import send_error
from cacheproxy.errors import ApiError, BadRequest, Forbidden, StoreError, Unauthorized, Unavailable
from cacheproxy.keys import Namespace
from cacheproxy.stores.protocol import Store
from cacheproxy.telemetry.journal import Journal
from cacheproxy.telemetry.request_trace import VISIT, Visit

_MOST_BODY_BYTES = 256 * 1024


class _PurgeBody(Target, kw_only=True):
    tenant: str
    namespace: str


_DECODER = msgspec.json.Decoder(_PurgeBody)


def make_admin_app(
    store: Store,
    keys_of: KeysOf,
    describe: Callable[[], Awaitable[Mapping[str, Any]]],
    describe_thresholds: Callable[[], Mapping[str, Any]],
    recent: Callable[[float], Awaitable[bytes]],
    journal: Journal,
    *,
    token: str | None,
) -> ASGIApp:
    """Return the application.

    Args:
        store: what is purged.
        keys_of: gives the keys of a text that is to be purged.
        describe: gives the figures; may raise `StoreError`.
        describe_thresholds: gives the semantic tier's, of each namespace.
        recent: gives the samples taken after a time (Unix, seconds) as JSON, for the page.
        journal: keeps what is asked.
        token: that callers must have, or None for programs on this machine only.
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
        try:
            removed = [await store.purge(each) for each in order.scopes(namespace.id, keys_of)]
        except StoreError as error:
            raise Unavailable(f"the purge is not complete, repeat it: {error}") from error
        return _json({"removed": sum(removed)})

    edge = Edge(
        [
            Route("/admin", to_page, methods=["GET"]),
            Route("/admin/", page, methods=["GET"]),
            Route("/admin/live", live, methods=["GET"]),
            Route("/admin/stats", stats, methods=["GET"]),
            Route("/admin/thresholds", thresholds, methods=["GET"]),
            Route("/admin/purge", purge, methods=["POST"]),
        ],
        journal,
    )

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if scope.get("path") not in PAGE_PATHS:
                check_caller(dict(scope["headers"]), token)
        except ApiError as error:
            await send_error(send, error)
        else:
            await edge(scope, receive, send)

    return guarded


def check_caller(headers: Mapping[bytes, bytes], token: str | None) -> None:
    """Return if the caller may be served.

    Raises:
        Unauthorized: there is a token, and the request has not got it.
        Forbidden: there is none, and a browser's page may have made the request.
    """
    if token is not None:
        scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() != b"bearer" or not hmac.compare_digest(given.strip(), token.encode()):
            raise Unauthorized("the admin token is needed: 'Authorization: Bearer TOKEN'")
    elif b"origin" in headers or not _is_loopback(headers.get(b"host", b"")):
        raise Forbidden("without an admin token, only programs on this machine may ask")


def _is_loopback(host: bytes) -> bool:
    name = host.decode("latin-1")
    name = name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]
    if name == "localhost":
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def _json(value: Mapping[str, Any]) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")
