"""The small routes: liveness, readiness, metrics, and the OpenAPI document."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta
from prometheus_client import CONTENT_TYPE_LATEST
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST as OPENMETRICS_TYPE
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cacheproxy.api.openapi import About, document
from cacheproxy.api.operation import Content, Operation, Parameter, Reply
from cacheproxy.api.response import refusals
from cacheproxy.telemetry.history import MetricsSource
from cacheproxy.telemetry.merged import TextFormat, render

Endpoint = Callable[[Request], Awaitable[Response]]

_OPENMETRICS = "application/openmetrics-text"
_NAME = "name[]"
"""What Prometheus' client libraries call it, too."""


class Alive(msgspec.Struct):
    """The process is alive."""

    status: Literal["ok"] = "ok"


class Ready(msgspec.Struct):
    """The server accepts requests."""

    status: Literal["ready"] = "ready"


class NotReady(msgspec.Struct):
    """The server should get no new requests."""

    reason: Annotated[str, Meta(description="Why not.", examples=["draining"])]
    status: Literal["not ready"] = "not ready"


HEALTHZ = Operation(
    method="GET",
    path="/healthz",
    id="getHealth",
    tag="Service",
    summary="Check whether the process is alive",
    description="For liveness probes.",
    replies={200: Reply("It is.", (Content(Alive),)), **refusals(500)},
    takes_key=False,
)

READYZ = Operation(
    method="GET",
    path="/readyz",
    id="getReadiness",
    tag="Service",
    summary="Check whether the server accepts requests",
    description="For readiness probes and load balancers. An unavailable store does not count.",
    replies={
        200: Reply("It does.", (Content(Ready),)),
        503: Reply("The server does not accept new requests at the moment.", (Content(NotReady),)),
        **refusals(500),
    },
    takes_key=False,
)

HEALTH = Operation(
    method="GET",
    path="/health",
    id="getTeiHealth",
    tag="text-embeddings-inference",
    summary="Check whether the server accepts requests",
    description="The same as `/readyz`, where text-embeddings-inference has it.",
    replies=READYZ.replies,
    takes_key=False,
)

METRICS = Operation(
    method="GET",
    path="/metrics",
    id="getMetrics",
    tag="Service",
    summary="Get the metrics for Prometheus",
    description="Over all workers, in Prometheus' text format; if `Accept` names OpenMetrics, in "
    "that format, which has exemplars.",
    query=(
        Parameter(
            _NAME,
            list[str],
            "Name of a series to return, such as `cacheproxy_lookups_total`; may be given several "
            "times. Without it, all are returned.",
        ),
    ),
    replies={
        200: Reply(
            "The metrics.",
            (Content(str, media_type="text/plain"), Content(str, media_type=_OPENMETRICS)),
        ),
        **refusals(500, 503, because={503: "The other workers' metrics are not available."}),
    },
    takes_key=False,
)

OPENAPI = Operation(
    method="GET",
    path="/openapi.json",
    id="getOpenapi",
    tag="Service",
    summary="Get this document",
    description="The OpenAPI 3.1 document of what this listener serves.",
    replies={200: Reply("The document.", (Content(dict[str, Any]),)), **refusals(500)},
    takes_key=False,
)


def _json(value: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


async def healthz(_: Request) -> Response:
    """Answer `HEALTHZ`."""
    return _json(Alive())


def readyz_endpoint(not_ready_because: Callable[[], str | None]) -> Endpoint:
    """Return the endpoint of `READYZ`: whether a load balancer should send requests here."""

    async def readyz(_: Request) -> Response:
        reason = not_ready_because()
        return _json(Ready()) if reason is None else _json(NotReady(reason), 503)

    return readyz


def metrics_endpoint(source: MetricsSource) -> Endpoint:
    """Return the endpoint of `METRICS`."""

    async def metrics(request: Request) -> Response:
        is_open = _OPENMETRICS in request.headers.get("accept", "").lower()
        text_format: TextFormat = "openmetrics" if is_open else "prometheus"
        content_type = OPENMETRICS_TYPE if is_open else CONTENT_TYPE_LATEST
        if names := request.query_params.getlist(_NAME):
            text = render(await source.families(names), text_format)
        else:
            text = await source.exposition(text_format)
        return Response(text, headers={"content-type": content_type, "vary": "accept"})

    return metrics


def described_routes(
    about: About, table: Sequence[tuple[Operation, Any]], *, needs_key: bool
) -> list[Route]:
    """Return the routes of a table, and the one of the document that describes them all."""
    operations = [*(operation for operation, _ in table), OPENAPI]
    body = msgspec.json.encode(document(about, operations, needs_key=needs_key))

    async def openapi(_: Request) -> Response:
        return Response(body, media_type="application/json")

    return [*(operation.route(endpoint) for operation, endpoint in table), OPENAPI.route(openapi)]
