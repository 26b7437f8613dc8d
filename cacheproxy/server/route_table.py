"""The routes of the public listener: each operation with its endpoint.

An operation is declared next to its dialect or endpoint, with its method and path. A new operation
only needs an entry here.
"""

import time
from collections.abc import Callable

from starlette.types import ASGIApp

from cacheproxy.api.callers import Callers
from cacheproxy.api.completions_endpoint import CompletionsEndpoint
from cacheproxy.api.dialects.completion_schemas import OPERATIONS
from cacheproxy.api.dialects.embed import EMBED, EmbedDialect
from cacheproxy.api.dialects.openai import CREATE_EMBEDDINGS, OpenAIDialect
from cacheproxy.api.dialects.protocol import Dialect, InputLimits
from cacheproxy.api.items_endpoint import ItemsEndpoint
from cacheproxy.api.operation import Operation
from cacheproxy.api.report import REPORT, ReportEndpoint
from cacheproxy.api.service import (
    HEALTHZ,
    LIST_MODELS,
    METRICS,
    READYZ,
    Endpoint,
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

Table = list[tuple[Operation, ASGIApp | Endpoint]]

_ITEMS: tuple[tuple[Operation, str, Dialect], ...] = (
    (CREATE_EMBEDDINGS, "embeddings", OpenAIDialect()),
    (EMBED, "embed", EmbedDialect()),
)
"""Operations of items routes, each with its label in the metrics and its dialect."""


def public_table(
    parts: Parts,
    embeddings: Embeddings,
    completions: Completions | None,
    *,
    not_ready_because: Callable[[], str | None],
    exposition: Exposition,
) -> Table:
    """Return the operations and their endpoints, the busiest first."""
    callers = Callers(parts.settings.api_keys)
    models = [route.model for route in embeddings.routes]
    return [
        *_items(parts, embeddings, callers),
        *(_completions(parts, completions, callers) if completions else ()),
        (LIST_MODELS, models_endpoint(models, parts.upstreams.models(), time.time())),
        (HEALTHZ, healthz),
        (READYZ, readyz_endpoint(not_ready_because)),
        (METRICS, metrics_endpoint(exposition)),
    ]


def _items(parts: Parts, embeddings: Embeddings, callers: Callers) -> Table:
    limits, by_name = parts.settings.limits, embeddings.by_name()
    return [
        (
            operation,
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
        )
        for operation, name, dialect in _ITEMS
    ]


def _completions(parts: Parts, completions: Completions, callers: Callers) -> Table:
    settings = parts.settings
    limits = settings.limits
    savings = Savings(settings.prices, parts.metrics)
    report = ReportEndpoint(completions.learning, callers, limits.body_timeout_s)
    return [
        *(
            (
                OPERATIONS[dialect.name],
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
            )
            for dialect in DIALECTS
        ),
        (REPORT, report),
    ]
