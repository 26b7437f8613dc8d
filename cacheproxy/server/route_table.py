"""The table of what the public listener serves: each path with its methods and its endpoint."""

import time
from collections.abc import Callable

from starlette.routing import Route

from cacheproxy.api.callers import Callers
from cacheproxy.api.completions_endpoint import CompletionsEndpoint
from cacheproxy.api.dialects.embed import EmbedDialect
from cacheproxy.api.dialects.openai import OpenAIDialect
from cacheproxy.api.dialects.protocol import Dialect, InputLimits
from cacheproxy.api.items_endpoint import ItemsEndpoint
from cacheproxy.api.report import ReportEndpoint
from cacheproxy.api.service import (
    Exposition,
    healthz,
    metrics_endpoint,
    models_endpoint,
    readyz_endpoint,
)
from cacheproxy.routes.chat.savings import Savings
from cacheproxy.server.completions import DIALECTS, Completions
from cacheproxy.server.embeddings import Embeddings
from cacheproxy.server.parts import Parts

_ITEMS: tuple[tuple[str, str, Dialect], ...] = (
    ("/v1/embeddings", "embeddings", OpenAIDialect()),
    ("/embed", "embed", EmbedDialect()),
)
"""Paths of items routes, each with its label in the metrics and its dialect."""


def public_routes(
    parts: Parts,
    embeddings: Embeddings,
    completions: Completions | None,
    *,
    not_ready_because: Callable[[], str | None],
    exposition: Exposition,
) -> list[Route]:
    """Return the routes, the busiest first."""
    callers = Callers(parts.settings.api_keys)
    models = [route.model for route in embeddings.routes]
    return [
        *_items(parts, embeddings, callers),
        *(_completions(parts, completions, callers) if completions else ()),
        Route("/v1/models", models_endpoint(models, parts.upstreams.models(), time.time())),
        Route("/healthz", healthz),
        Route("/readyz", readyz_endpoint(not_ready_because)),
        Route("/metrics", metrics_endpoint(exposition)),
    ]


def _items(parts: Parts, embeddings: Embeddings, callers: Callers) -> list[Route]:
    limits, by_name = parts.settings.limits, embeddings.by_name()
    return [
        Route(
            path,
            ItemsEndpoint(
                name,
                dialect,
                routes=by_name,
                default_model=embeddings.routes[0].model.name,
                callers=callers,
                limits=InputLimits(limits.inputs, limits.characters),
                max_body_bytes=limits.body_bytes,
                body_timeout_s=limits.body_timeout_s,
                metrics=parts.metrics,
                recorder=parts.recorder,
            ),
            methods=["POST"],
        )
        for path, name, dialect in _ITEMS
    ]


def _completions(parts: Parts, completions: Completions, callers: Callers) -> list[Route]:
    settings = parts.settings
    limits = settings.limits
    savings = Savings(settings.prices, parts.metrics)
    report = ReportEndpoint(completions.learning, callers, limits.body_timeout_s)
    return [
        *(
            Route(
                f"/v1/{dialect.path}",
                CompletionsEndpoint(
                    dialect,
                    completions.route,
                    completions.models,
                    savings,
                    callers=callers,
                    max_temperature=settings.chat.max_temperature,
                    max_body_bytes=limits.chat_body_bytes,
                    body_timeout_s=limits.body_timeout_s,
                    metrics=parts.metrics,
                    recorder=parts.recorder,
                ),
                methods=["POST"],
            )
            for dialect in DIALECTS
        ),
        Route("/v1/cache/report", report, methods=["POST"]),
    ]
