"""The small routes: models served, liveness, readiness, metrics."""

from collections.abc import Awaitable, Callable, Sequence

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response

from cacheproxy.routes.exchange import ModelInfo

Endpoint = Callable[[Request], Awaitable[Response]]
Exposition = Callable[[], Awaitable[bytes]]
"""Gives the metrics in the Prometheus text format."""


def _json(value: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def models_endpoint(
    models: Sequence[ModelInfo], chat_models: Sequence[str], started_at: float
) -> Endpoint:
    """`GET /v1/models`: OpenAI's list; `started_at` is Unix time, seconds."""
    created = int(started_at)
    listing = {
        "object": "list",
        "data": [
            {
                "id": model.name,
                "object": "model",
                "created": created,
                "owned_by": "cacheproxy",
                "dimensions": model.dimensions,
                "aliases": model.aliases,
                "fingerprint": model.fingerprint,
            }
            for model in models
        ]
        + [
            {"id": name, "object": "model", "created": created, "owned_by": "upstream"}
            for name in chat_models
        ],
    }

    async def models_served(_: Request) -> Response:
        return _json(listing)

    return models_served


async def healthz(_: Request) -> Response:
    """`GET /healthz`: the process answers."""
    return _json({"status": "ok"})


def readyz_endpoint(not_ready_because: Callable[[], str | None]) -> Endpoint:
    """`GET /readyz`: whether a balancer should send requests here."""

    async def readyz(_: Request) -> Response:
        reason = not_ready_because()
        if reason is None:
            return _json({"status": "ready"})
        return _json({"status": "not ready", "reason": reason}, 503)

    return readyz


def metrics_endpoint(exposition: Exposition) -> Endpoint:
    """`GET /metrics`: the Prometheus text format."""

    async def metrics(_: Request) -> Response:
        return Response(await exposition(), headers={"content-type": CONTENT_TYPE_LATEST})

    return metrics
