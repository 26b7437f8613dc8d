"""`GET /v1/models` and `GET /v1/models/{id}`: OpenAI's objects, and what else is known."""

from collections.abc import Iterable, Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType
from starlette.requests import Request
from starlette.responses import Response

from cacheproxy.api.callers import Callers
from cacheproxy.api.dialects.protocol import InputLimits
from cacheproxy.api.operation import Content, Operation, Parameter, Reply
from cacheproxy.api.response import REQUEST_ID, refusals
from cacheproxy.errors import BadRequest
from cacheproxy.routes.exchange import ModelInfo
from cacheproxy.telemetry.request_trace import VISIT
from cacheproxy.upstreams.catalogue import Catalogue, UpstreamModel


class Model(msgspec.Struct):
    """A model that is served. What is more than OpenAI's is given where it is known."""

    id: Annotated[str, Meta(description="The name to request it by.")]
    object: Literal["model"]
    created: Annotated[
        int,
        Meta(
            description="Unix time in seconds, as its upstream says, or when this server started."
        ),
    ]
    owned_by: Annotated[
        str,
        Meta(description="`cacheproxy` if it runs here; else as its upstream says, or `upstream`."),
    ]
    kind: Annotated[
        Literal["embeddings", "rerank", "completions"] | UnsetType,
        Meta(description="What it can do."),
    ] = UNSET
    dimensions: Annotated[int | UnsetType, Meta(description="The length of its vectors.")] = UNSET
    matryoshka: Annotated[
        tuple[int, ...] | UnsetType,
        Meta(description="Smaller dimensions that it was trained to be cut to."),
    ] = UNSET
    max_tokens: Annotated[
        int | UnsetType,
        Meta(description="Where longer inputs, or pairs of them, are cut, in tokens."),
    ] = UNSET
    max_inputs: Annotated[int | UnsetType, Meta(description="The most inputs in a request.")] = (
        UNSET
    )
    max_characters: Annotated[
        int | UnsetType, Meta(description="The most characters in an input.")
    ] = UNSET
    aliases: Annotated[
        tuple[str, ...] | UnsetType, Meta(description="Further names to request it by.")
    ] = UNSET
    fingerprint: Annotated[
        str | UnsetType,
        Meta(description="Changes whenever the model's vectors may have changed."),
    ] = UNSET


class ModelList(msgspec.Struct):
    """OpenAI's list of models."""

    object: Literal["list"]
    data: list[Model]


_EXAMPLE = {
    "id": "all-MiniLM-L6-v2",
    "object": "model",
    "created": 1764216000,
    "owned_by": "cacheproxy",
    "kind": "embeddings",
    "dimensions": 384,
    "matryoshka": [],
    "max_tokens": 256,
    "max_inputs": 2048,
    "max_characters": 32768,
    "aliases": ["sentence-transformers/all-MiniLM-L6-v2"],
    "fingerprint": "a" * 64,
}

LIST_MODELS = Operation(
    method="GET",
    path="/v1/models",
    id="listModels",
    tag="Models",
    summary="List the models that are served",
    description="The models that run here, then those of upstreams: the ones that are configured "
    "by name, and of an upstream that serves any model those that it lists itself.",
    headers=(REQUEST_ID,),
    replies={
        200: Reply(
            "The models.",
            (Content(ModelList, {"One": {"object": "list", "data": [_EXAMPLE]}}),),
        ),
        **refusals(401, 500),
    },
)

GET_MODEL = Operation(
    method="GET",
    path="/v1/models/{id:path}",
    id="getModel",
    tag="Models",
    summary="Get a model by its name or an alias",
    description="The name may contain slashes.",
    headers=(REQUEST_ID,),
    path_parameters=(
        Parameter(
            "id",
            Annotated[str, Meta(min_length=1)],
            "A name or an alias.",
            example="all-MiniLM-L6-v2",
            is_required=True,
        ),
    ),
    replies={
        200: Reply(
            "The model, under its own name.", (Content(Model, {"A local model": _EXAMPLE}),)
        ),
        **refusals(401, 404, 500),
    },
)


class ModelsEndpoint:
    """What answers both operations."""

    def __init__(
        self,
        embedders: Sequence[ModelInfo],
        rerankers: Sequence[ModelInfo],
        catalogue: Catalogue,
        callers: Callers,
        limits: InputLimits,
        started_at: int,
    ) -> None:
        """Prepare; `started_at` is Unix time, seconds."""
        self._items = [
            *(_embedder(model, limits, started_at) for model in embedders),
            *(_reranker(model, limits, started_at) for model in rerankers),
        ]
        self._catalogue = catalogue
        self._callers = callers
        self._started_at = started_at

    async def list(self, request: Request) -> Response:
        """Answer `LIST_MODELS`; raises `Unauthorized`."""
        self._callers.identify(request.scope[VISIT].headers)
        return _json(ModelList("list", [*await self._models()]))

    async def get(self, request: Request) -> Response:
        """Answer `GET_MODEL`; raises `Unauthorized`, or `BadRequest` (404)."""
        self._callers.identify(request.scope[VISIT].headers)
        name = request.path_params["id"]
        for model in await self._models():
            if name == model.id or (model.aliases and name in model.aliases):
                return _json(model)
        raise BadRequest(
            "no such model is served here", status=404, param="model", code="model_not_found"
        )

    async def _models(self) -> Iterable[Model]:
        """Return the models, local ones first; of two with one name the first."""
        found = {model.id: model for model in self._items}
        for theirs in await self._catalogue.models():
            found.setdefault(theirs.id, self._upstream_model(theirs))
        return found.values()

    def _upstream_model(self, theirs: UpstreamModel) -> Model:
        return Model(
            id=theirs.id,
            object="model",
            created=self._started_at if theirs.created is None else theirs.created,
            owned_by=theirs.owned_by or "upstream",
            kind=theirs.kind or UNSET,
        )


def _embedder(model: ModelInfo, limits: InputLimits, started_at: int) -> Model:
    described = _reranker(model, limits, started_at)
    described.kind = "embeddings"
    described.dimensions = model.dimensions
    described.matryoshka = UNSET if model.matryoshka is None else model.matryoshka
    return described


def _reranker(model: ModelInfo, limits: InputLimits, started_at: int) -> Model:
    return Model(
        id=model.name,
        object="model",
        created=started_at,
        owned_by="cacheproxy" if model.is_local else "upstream",
        kind="rerank",
        max_tokens=UNSET if model.max_tokens is None else model.max_tokens,
        max_inputs=limits.inputs,
        max_characters=limits.characters,
        aliases=model.aliases,
        fingerprint=model.fingerprint,
    )


def _json(value: Model | ModelList) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")
