"""The routes of the public listener: each operation with its endpoint.

An operation is declared next to its dialect or endpoint, with its method and path. A new operation
only needs an entry here.
"""

import time
from collections.abc import Callable, Sequence

from starlette.routing import Route
from starlette.types import ASGIApp

from cacheproxy.api.callers import Callers
from cacheproxy.api.canaries import Canaries
from cacheproxy.api.completions_endpoint import CompletionsEndpoint
from cacheproxy.api.connection import Watch
from cacheproxy.api.dialects.cohere_embed import (
    EMBED_COHERE,
    EMBED_COHERE_V1,
    CohereEmbedDialect,
)
from cacheproxy.api.dialects.completion_schemas import OPERATIONS
from cacheproxy.api.dialects.embed import EMBED, EmbedDialect
from cacheproxy.api.dialects.embedding import Asked, DimensionsRule, EmbeddingPreparation
from cacheproxy.api.dialects.models import GET_MODEL, LIST_MODELS, ModelsEndpoint
from cacheproxy.api.dialects.ollama import (
    OLLAMA_EMBED,
    OLLAMA_EMBEDDINGS,
    OLLAMA_SHOW,
    OLLAMA_TAGS,
    OLLAMA_VERSION,
    OllamaEmbedDialect,
    OllamaEmbeddingsDialect,
)
from cacheproxy.api.dialects.openai import CREATE_EMBEDDINGS, OpenAIDialect
from cacheproxy.api.dialects.protocol import A, Dialect, InputLimits, Preparation, R
from cacheproxy.api.dialects.rerank import RerankAsked, RerankPreparation
from cacheproxy.api.dialects.rerank_forms import (
    RERANK,
    RERANK_COHERE,
    RERANK_TEI,
    CohereDialect,
    JinaDialect,
    TeiDialect,
)
from cacheproxy.api.dialects.tei import (
    INFO,
    ROOT,
    SIMILARITY,
    TOKENIZE,
    RootDialect,
    SimilarityDialect,
)
from cacheproxy.api.items_endpoint import ItemsEndpoint
from cacheproxy.api.model_details import LocalDetails, ModelDetails
from cacheproxy.api.operation import Operation
from cacheproxy.api.pass_through import METHODS as PASSED_METHODS
from cacheproxy.api.pass_through import PassThrough
from cacheproxy.api.report import REPORT, ReportEndpoint
from cacheproxy.api.request.body_budget import BodyBudget
from cacheproxy.api.service import (
    HEALTH,
    HEALTHZ,
    METRICS,
    READYZ,
    Endpoint,
    healthz,
    metrics_endpoint,
    readyz_endpoint,
)
from cacheproxy.concurrency.freed_memory import FreedMemory
from cacheproxy.inference.pieces import PieceTokenizer
from cacheproxy.records import EmbeddingRecord
from cacheproxy.routes.chat.savings import Savings
from cacheproxy.routes.items import ItemsRoute
from cacheproxy.routes.scores import ScoreRecord
from cacheproxy.server.completions import DIALECTS, Completions
from cacheproxy.server.embeddings import Embeddings
from cacheproxy.server.parts import Parts
from cacheproxy.server.reranking import Reranking
from cacheproxy.settings.settings import Settings
from cacheproxy.telemetry.history import MetricsSource
from cacheproxy.upstreams.catalogue import Catalogue

Table = list[tuple[Operation, ASGIApp | Endpoint]]

_EMBEDDINGS: tuple[tuple[Operation, str, Dialect[Asked, EmbeddingRecord]], ...] = (
    (CREATE_EMBEDDINGS, "embeddings", OpenAIDialect()),
    (EMBED, "embed", EmbedDialect()),
    (SIMILARITY, "similarity", SimilarityDialect()),
    (ROOT, "root", RootDialect()),
    (EMBED_COHERE, "embed_cohere", CohereEmbedDialect(version="2")),
    (EMBED_COHERE_V1, "embed_cohere_v1", CohereEmbedDialect(version="1")),
    (OLLAMA_EMBED, "ollama_embed", OllamaEmbedDialect()),
    (OLLAMA_EMBEDDINGS, "ollama_embeddings", OllamaEmbeddingsDialect()),
)
"""Operations of embeddings, each with its label in the metrics and its dialect."""

_RERANK: tuple[tuple[Operation, str, Dialect[RerankAsked, ScoreRecord]], ...] = (
    (RERANK, "rerank", JinaDialect()),
    (RERANK_COHERE, "rerank_cohere", CohereDialect()),
    (RERANK_TEI, "rerank_tei", TeiDialect()),
)
"""The same of reranking; they are served if there is a reranker."""


def public_table(
    parts: Parts,
    embeddings: Embeddings,
    reranking: Reranking,
    completions: Completions | None,
    callers: Callers,
    watch: Watch,
    *,
    not_ready_because: Callable[[], str | None],
    metrics: MetricsSource,
) -> Table:
    """Return the operations and their endpoints, the busiest first."""
    canaries = _canaries(parts, embeddings, reranking, has_chat=completions is not None)
    return [
        *_embeddings(parts, embeddings, callers, canaries, watch),
        *(_rerank(parts, reranking, callers, canaries, watch) if reranking.routes else ()),
        *(_completions(parts, completions, callers, canaries, watch) if completions else ()),
        *_models(parts, embeddings, reranking, callers),
        *_details(parts, embeddings, callers, watch),
        (HEALTH, readyz_endpoint(not_ready_because)),
        (HEALTHZ, healthz),
        (READYZ, readyz_endpoint(not_ready_because)),
        (METRICS, metrics_endpoint(metrics)),
    ]


def _canaries(
    parts: Parts, embeddings: Embeddings, reranking: Reranking, *, has_chat: bool
) -> Canaries:
    """Return the canaries, which change with the settings; raises `ConfigError`."""
    kinds = [
        {name: route.model.name for name, route in _by_name(embeddings.routes).items()},
        {name: route.model.name for name, route in _by_name(reranking.routes).items()},
    ]
    canaries = Canaries(parts.metrics.rollout, kinds, has_chat=has_chat)
    canaries.prepare(parts.settings.canary)()
    parts.reloading.prepare_by(lambda settings: canaries.prepare(settings.canary))
    return canaries


def _by_name(routes: Sequence[ItemsRoute[R]]) -> dict[str, ItemsRoute[R]]:
    """Return each model's route by its names; the first one that has a name or an alias gets it."""
    return {
        name: route
        for route in reversed(routes)
        for name in (route.model.name, *route.model.aliases)
    }


def absent_paths(*, has_upstream: bool, has_reranker: bool) -> dict[str, str]:
    """Return what this server lacks to have the paths that clients may look for."""
    absent: dict[str, str] = {}
    if not has_reranker:
        needed = "reranking needs a reranker, --model or upstreams.NAME.rerank"
        absent |= dict.fromkeys((operation.path for operation, *_ in _RERANK), needed)
    if not has_upstream:
        absent["/v1/"] = "chat and all that is not embedded or ranked here needs an --upstream"
    return absent


def make_watch(parts: Parts) -> Watch:
    """Return what watches over the exchanges of all routes, and over the bytes of their bodies."""
    limits = parts.settings.limits
    budget = BodyBudget(
        all_bytes=limits.all_bodies_bytes,
        caller_bytes=limits.caller_bodies_bytes,
        shed=parts.metrics.shed,
        freed=FreedMemory().freed,
    )
    return Watch(
        body_timeout_s=limits.body_timeout_s, budget=budget, json_elements=limits.json_elements
    )


def _models(parts: Parts, embeddings: Embeddings, reranking: Reranking, callers: Callers) -> Table:
    limits = parts.settings.limits
    endpoint = ModelsEndpoint(
        [route.model for route in embeddings.routes],
        [route.model for route in reranking.routes],
        Catalogue(parts.upstreams),
        callers,
        InputLimits(limits.inputs, limits.characters),
        started_at=int(time.time()),
    )
    return [(LIST_MODELS, endpoint.list), (GET_MODEL, endpoint.get)]


def _details(parts: Parts, embeddings: Embeddings, callers: Callers, watch: Watch) -> Table:
    limits = parts.settings.limits
    endpoint = ModelDetails(
        [route.model for route in embeddings.routes],
        {
            model.installed.name: LocalDetails(
                pooling=model.installed.pooling,
                dtype="int8" if model.installed.device == "cpu" else "float16",
                size_bytes=model.installed.graph.stat().st_size,
                pieces=PieceTokenizer(model.installed.tokenizer_json),
                reader=embeddings.readers[model.installed.name],
            )
            for model in parts.models
        },
        callers,
        InputLimits(limits.inputs, limits.characters),
        watch,
        parts.tokenizing,
        max_batch_tokens=parts.settings.batching.max_tokens,
        max_connections=limits.connections,
        started_at=int(time.time()),
    )
    return [
        (INFO, endpoint.info),
        (TOKENIZE, endpoint.tokenize),
        (OLLAMA_TAGS, endpoint.tags),
        (OLLAMA_SHOW, endpoint.show),
        (OLLAMA_VERSION, endpoint.version),
    ]


def _embeddings(
    parts: Parts, embeddings: Embeddings, callers: Callers, canaries: Canaries, watch: Watch
) -> Table:
    limits = parts.settings.limits
    untrained = parts.settings.embeddings.untrained_dimensions
    preparation = EmbeddingPreparation(
        InputLimits(limits.inputs, limits.characters),
        DimensionsRule(refuses_untrained=untrained == "refuse"),
        embeddings.readers,
    )
    return _items(parts, _EMBEDDINGS, preparation, embeddings.routes, callers, canaries, watch)


def _rerank(
    parts: Parts, reranking: Reranking, callers: Callers, canaries: Canaries, watch: Watch
) -> Table:
    limits = parts.settings.limits
    preparation = RerankPreparation(InputLimits(limits.inputs, limits.characters))
    return _items(parts, _RERANK, preparation, reranking.routes, callers, canaries, watch)


def _items(
    parts: Parts,
    operations: Sequence[tuple[Operation, str, Dialect[A, R]]],
    preparation: Preparation[A],
    routes: Sequence[ItemsRoute[R]],
    callers: Callers,
    canaries: Canaries,
    watch: Watch,
) -> Table:
    """Return the operations of one kind of items; the first route is of the default model."""
    named = _by_name(routes)
    return [
        (
            operation,
            ItemsEndpoint(
                name,
                dialect,
                preparation,
                routes=named,
                default_model=routes[0].model.name,
                callers=callers,
                canaries=canaries,
                max_body_bytes=parts.settings.limits.body_bytes,
                watch=watch,
                metrics=parts.metrics,
                recorder=parts.recorder,
            ),
        )
        for operation, name, dialect in operations
    ]


def _completions(
    parts: Parts, completions: Completions, callers: Callers, canaries: Canaries, watch: Watch
) -> Table:
    settings = parts.settings
    limits = settings.limits
    savings = Savings(settings.prices, parts.metrics)
    endpoints = {
        dialect.name: CompletionsEndpoint(
            dialect,
            completions.route,
            completions.models,
            savings,
            callers=callers,
            canaries=canaries,
            max_temperature=settings.chat.max_temperature,
            max_body_bytes=limits.chat_body_bytes,
            watch=watch,
            metrics=parts.metrics,
            recorder=parts.recorder,
        )
        for dialect in DIALECTS
    }

    def take(settings: Settings) -> None:
        savings.prices = settings.prices
        for endpoint in endpoints.values():
            endpoint.max_temperature = settings.chat.max_temperature

    parts.reloading.take_by(take)
    return [
        *((OPERATIONS[name], endpoint) for name, endpoint in endpoints.items()),
        (REPORT, ReportEndpoint(completions.learning, callers, watch)),
    ]


def pass_through(parts: Parts, callers: Callers, watch: Watch, table: Table) -> list[Route]:
    """Return the route of all other paths under /v1, if there is an upstream to pass them to."""
    settings = parts.settings
    mode = settings.upstream_passthrough
    if mode == "off" or not parts.upstreams:
        return []
    endpoint = PassThrough(
        parts.upstreams,
        callers,
        own=[one.path.removeprefix("/v1/") for one, _ in table if one.method == "POST"],
        mode=mode,
        max_body_bytes=settings.limits.chat_body_bytes,
        watch=watch,
        metrics=parts.metrics,
    )
    return [Route("/v1/{rest:path}", endpoint, methods=PASSED_METHODS)]
