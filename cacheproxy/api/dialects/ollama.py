"""Ollama's embedding API: `POST /api/embed`, the older `/api/embeddings`, and what clients ask.

The two that embed are dialects of embeddings. `/api/tags`, `/api/show` and `/api/version` tell what
is served, as far as Ollama has words for it. A model may be named with the tag `:latest`.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from cacheproxy.api.dialects.embedding import Asked, Text
from cacheproxy.api.dialects.protocol import ITEM_HEADERS, ITEM_REFUSALS
from cacheproxy.api.operation import Content, Operation, Reply
from cacheproxy.api.presentation import CACHE_HEADERS, VectorFrame, render_vector, render_vectors
from cacheproxy.api.request.body import decode_json
from cacheproxy.api.response import REQUEST_ID, refusals
from cacheproxy.errors import BadRequest
from cacheproxy.records import EmbeddingRecord
from cacheproxy.routes.exchange import EmbeddingsResult, ModelInfo

_TAG = "Ollama"
_LATEST = ":latest"

_ModelName = Annotated[
    str,
    Meta(
        min_length=1,
        description="A model that `GET /v1/models` lists, or another name of it; `:latest` may "
        "stand behind it.",
    ),
]
_Ignored = Annotated[Any, Meta(description="Ignored: models stay in memory.")]
_ALWAYS = {"const": True}


class OllamaEmbedRequest(msgspec.Struct):
    """Texts to embed. Fields that are not listed are ignored."""

    model: _ModelName
    input: Text | Annotated[list[Text], Meta(min_length=1)]
    truncate: Annotated[
        bool, Meta(description="Long texts are always truncated.", extra_json_schema=_ALWAYS)
    ] = True
    dimensions: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="Length to which vectors are cut; at most the model's."),
    ] = None
    options: _Ignored = None
    keep_alive: _Ignored = None


class OllamaEmbedResponse(msgspec.Struct):
    """The vectors in the order of the texts. Durations are in nanoseconds."""

    model: Annotated[str, Meta(description="The model's own name.")]
    embeddings: list[list[float]]
    total_duration: int
    load_duration: int
    prompt_eval_count: Annotated[int, Meta(description="How many tokens the model read.")]


class OllamaEmbeddingsRequest(msgspec.Struct):
    """One text to embed. Fields that are not listed are ignored."""

    model: _ModelName
    prompt: Text
    options: _Ignored = None
    keep_alive: _Ignored = None


class OllamaEmbeddingsResponse(msgspec.Struct):
    """One vector."""

    embedding: list[float]


OLLAMA_EMBED = Operation(
    method="POST",
    path="/api/embed",
    id="ollamaEmbed",
    tag=_TAG,
    summary="Embed texts as Ollama does",
    description="The tiers are those of `/v1/embeddings`, and so are the entries.",
    headers=ITEM_HEADERS,
    body=Content(
        OllamaEmbedRequest, {"One": {"model": "all-MiniLM-L6-v2", "input": "What is a cache?"}}
    ),
    replies={
        200: Reply(
            "The vectors.",
            (
                Content(
                    OllamaEmbedResponse,
                    {
                        "One": {
                            "model": "all-MiniLM-L6-v2",
                            "embeddings": [[0.6, -0.8]],
                            "total_duration": 2_310_000,
                            "load_duration": 0,
                            "prompt_eval_count": 7,
                        }
                    },
                ),
            ),
            CACHE_HEADERS,
        ),
        **ITEM_REFUSALS,
    },
)

OLLAMA_EMBEDDINGS = Operation(
    method="POST",
    path="/api/embeddings",
    id="ollamaEmbeddings",
    tag=_TAG,
    summary="Embed one text as Ollama did before `/api/embed`",
    description="The tiers are those of `/v1/embeddings`, and so are the entries.",
    headers=ITEM_HEADERS,
    body=Content(
        OllamaEmbeddingsRequest,
        {"One": {"model": "all-MiniLM-L6-v2", "prompt": "What is a cache?"}},
    ),
    replies={
        200: Reply(
            "The vector.",
            (Content(OllamaEmbeddingsResponse, {"One": {"embedding": [0.6, -0.8]}}),),
            CACHE_HEADERS,
        ),
        **ITEM_REFUSALS,
    },
)


class OllamaDetails(msgspec.Struct):
    """What a model is made of; what is not known of an upstream's model is empty."""

    parent_model: str
    format: str
    family: str
    families: tuple[str, ...]
    parameter_size: str
    quantization_level: str


class OllamaModel(msgspec.Struct):
    """A model that embeds."""

    name: str
    model: str
    modified_at: Annotated[str, Meta(description="When this server started (RFC 3339).")]
    size: Annotated[int, Meta(description="Bytes of its graph; 0 for a model of an upstream.")]
    digest: Annotated[str, Meta(description="The fingerprint.")]
    details: OllamaDetails


class OllamaTags(msgspec.Struct):
    """The models that embed."""

    models: list[OllamaModel]


OLLAMA_TAGS = Operation(
    method="GET",
    path="/api/tags",
    id="ollamaTags",
    tag=_TAG,
    summary="List the models that embed as Ollama does",
    description="`GET /v1/models` lists all models.",
    headers=(REQUEST_ID,),
    replies={200: Reply("The models.", (Content(OllamaTags),)), **refusals(401, 500)},
)


class OllamaShowRequest(msgspec.Struct):
    """A model's name, in one of two fields. Fields that are not listed are ignored."""

    model: str | None = None
    name: str | None = None


class OllamaShowResponse(msgspec.Struct):
    """What is known of a model; `model_info` has its context and its dimensions."""

    modelfile: str
    parameters: str
    template: str
    details: OllamaDetails
    model_info: dict[str, str | int]
    capabilities: list[Literal["embedding"]]
    modified_at: str


OLLAMA_SHOW = Operation(
    method="POST",
    path="/api/show",
    id="ollamaShow",
    tag=_TAG,
    summary="Get a model that embeds as Ollama does",
    description="By its name or an alias.",
    headers=(REQUEST_ID,),
    body=Content(
        Annotated[
            OllamaShowRequest,
            Meta(
                extra_json_schema={
                    "anyOf": [
                        {"required": [name], "properties": {name: {"type": "string"}}}
                        for name in ("model", "name")
                    ]
                }
            ),
        ],
        {"One": {"model": "all-MiniLM-L6-v2"}},
    ),
    replies={
        200: Reply("The model.", (Content(OllamaShowResponse),)),
        **refusals(400, 401, 404, 408, 413, 415, 500, 503),
    },
)


class OllamaVersion(msgspec.Struct):
    """This server's version."""

    version: str


OLLAMA_VERSION = Operation(
    method="GET",
    path="/api/version",
    id="ollamaVersion",
    tag=_TAG,
    summary="Get this server's version",
    description="Its own: cacheproxy's.",
    headers=(REQUEST_ID,),
    replies={200: Reply("The version.", (Content(OllamaVersion),)), **refusals(500)},
    takes_key=False,
)

_EMBED = msgspec.json.Decoder(OllamaEmbedRequest)
_EMBEDDINGS = msgspec.json.Decoder(OllamaEmbeddingsRequest)
_SHOW = msgspec.json.Decoder(OllamaShowRequest)


def parse_show(body: bytes) -> str:
    """Return the name of the model that a request to show one names; raises `BadRequest`."""
    asked = decode_json(_SHOW, body)
    name = asked.model if asked.model is not None else asked.name
    if name is None:
        raise BadRequest("'model' is missing", param="model")
    return untagged(name)


def untagged(name: str) -> str:
    """Return a model's name without `:latest`."""
    return name.removesuffix(_LATEST)


class OllamaEmbedDialect:
    """`/api/embed`."""

    def parse(self, body: bytes) -> Asked:
        """Return what is asked; raises `BadRequest`."""
        asked = decode_json(_EMBED, body)
        if not asked.truncate:
            raise BadRequest("long texts are always truncated", param="truncate")
        inputs = [asked.input] if isinstance(asked.input, str) else asked.input
        return Asked(inputs, untagged(asked.model), dimensions=asked.dimensions)

    async def render(
        self, asked: Asked, answer: EmbeddingsResult, model: ModelInfo, total_s: float
    ) -> bytes:
        """Return the vectors, with the time and the tokens that they took."""
        vectors = await render_vectors(answer, "float", asked.dimensions)
        return (
            b'{"model":%b,"embeddings":[%b],"total_duration":%d,"load_duration":0,'
            b'"prompt_eval_count":%d}'
        ) % (
            msgspec.json.encode(model.name),
            b",".join(vectors),
            1e9 * total_s,
            sum(one.record.tokens for one in answer.served),
        )

    def frame(self, asked: Asked, model: ModelInfo, record: EmbeddingRecord) -> None:
        """Return None: answers contain the time that they took, and so they differ."""


class OllamaEmbeddingsDialect:
    """`/api/embeddings`."""

    def parse(self, body: bytes) -> Asked:
        """Return what is asked; raises `BadRequest`."""
        asked = decode_json(_EMBEDDINGS, body)
        return Asked([asked.prompt], untagged(asked.model))

    async def render(
        self, asked: Asked, answer: EmbeddingsResult, model: ModelInfo, total_s: float
    ) -> bytes:
        """Return the vector."""
        return b'{"embedding":%b}' % render_vector(answer.served[0], "float", None)

    def frame(self, asked: Asked, model: ModelInfo, record: EmbeddingRecord) -> VectorFrame:
        """Return what stands around the vector."""
        return VectorFrame(b'{"embedding":', "float", b"}")
