"""Cohere's embedding API: `POST /v2/embed`, and `POST /v1/embed` of the older clients.

The two read the same request. They differ in what answers one that names no `embedding_types`: the
second version gives `float` by its name, the first a plain list of vectors.
"""

import uuid
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from cacheproxy.api.dialects.embedding import Asked, Text
from cacheproxy.api.dialects.embedding_options import role_of
from cacheproxy.api.dialects.protocol import ITEM_HEADERS, ITEM_REFUSALS
from cacheproxy.api.dialects.rerank_schemas import CohereVersion
from cacheproxy.api.operation import Content, Operation, Reply
from cacheproxy.api.presentation import CACHE_HEADERS, Form, render_vectors
from cacheproxy.api.request.body import decode_json
from cacheproxy.records import EmbeddingRecord
from cacheproxy.routes.exchange import EmbeddingsResult, ModelInfo

_Refused = Annotated[None, Meta(description="Not supported: leave it out.")]


class CohereEmbedRequest(msgspec.Struct):
    """Texts to embed. Fields that are not listed are ignored."""

    texts: Annotated[list[Text], Meta(min_length=1)]
    model: Annotated[
        str | None, Meta(description="A model that `GET /v1/models` lists, or an alias.")
    ] = None
    input_type: Annotated[
        Literal["search_document", "search_query", "classification", "clustering"] | None,
        Meta(description="What the texts are for; the server adds the model's own prefix for it."),
    ] = None
    embedding_types: Annotated[
        Annotated[list[Form], Meta(min_length=1)] | None,
        Meta(description="The types of the numbers; base64 is of little-endian float32."),
    ] = None
    output_dimension: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="Length to which vectors are cut; at most the model's."),
    ] = None
    truncate: Annotated[
        Literal["END"] | None, Meta(description="Long texts are always truncated at their end.")
    ] = None
    max_tokens: _Refused = None
    images: _Refused = None
    inputs: _Refused = None


class CohereVectors(msgspec.Struct):
    """Vectors by the type of their numbers, each in the order of the texts."""

    floats: list[list[float]] | UnsetType = msgspec.field(default=UNSET, name="float")
    int8: list[list[int]] | UnsetType = UNSET
    uint8: list[list[int]] | UnsetType = UNSET
    binary: list[list[int]] | UnsetType = UNSET
    ubinary: list[list[int]] | UnsetType = UNSET
    base64: list[str] | UnsetType = UNSET


class CohereBilledUnits(msgspec.Struct):
    """Tokens that the model reads of the texts, cached or not."""

    input_tokens: int


class CohereEmbedMeta(msgspec.Struct):
    """What Cohere's clients expect to be told of a request."""

    api_version: CohereVersion
    billed_units: CohereBilledUnits


class CohereEmbedResponse(msgspec.Struct):
    """The vectors, with the texts that they are of."""

    response_type: Literal["embeddings_by_type"]
    id: str
    embeddings: CohereVectors
    texts: list[str]
    meta: CohereEmbedMeta


class CohereEmbedV1Response(msgspec.Struct):
    """The same; a request that names no types is answered with a list of vectors."""

    response_type: Literal["embeddings_by_type", "embeddings_floats"]
    id: str
    embeddings: CohereVectors | list[list[float]]
    texts: list[str]
    meta: CohereEmbedMeta


_DESCRIPTION = """
The tiers are those of `/v1/embeddings`, and so are the entries: an entry answers in every type.
Images are not embedded.
"""
_ASKED = {
    "A query, in two types": {
        "model": "all-MiniLM-L6-v2",
        "texts": ["What is a cache stampede?"],
        "input_type": "search_query",
        "embedding_types": ["float", "int8"],
    }
}
_META = {"api_version": {"version": "2", "is_experimental": False}}
_BY_TYPE = {
    "response_type": "embeddings_by_type",
    "id": "0f9f4bd5",
    "embeddings": {"float": [[0.6, -0.8]], "int8": [[95, -127]]},
    "texts": ["What is a cache stampede?"],
    "meta": {**_META, "billed_units": {"input_tokens": 9}},
}

EMBED_COHERE = Operation(
    method="POST",
    path="/v2/embed",
    id="embedCohere",
    tag="Embeddings",
    summary="Embed texts, as Cohere does",
    description=_DESCRIPTION,
    headers=ITEM_HEADERS,
    body=Content(CohereEmbedRequest, _ASKED),
    replies={
        200: Reply(
            "The embeddings.",
            (Content(CohereEmbedResponse, {"Two types": _BY_TYPE}),),
            CACHE_HEADERS,
        ),
        **ITEM_REFUSALS,
    },
)

EMBED_COHERE_V1 = Operation(
    method="POST",
    path="/v1/embed",
    id="embedCohereV1",
    tag="Embeddings",
    summary="Embed texts, as the first version of Cohere's API does",
    description=_DESCRIPTION,
    headers=ITEM_HEADERS,
    body=Content(CohereEmbedRequest, _ASKED),
    replies={
        200: Reply(
            "The embeddings; without `embedding_types` a list of vectors.",
            (Content(CohereEmbedV1Response, {"Two types": _BY_TYPE}),),
            CACHE_HEADERS,
        ),
        **ITEM_REFUSALS,
    },
)

_DECODER = msgspec.json.Decoder(CohereEmbedRequest)


class _PlainAsked(Asked):
    """A request that is answered with a plain list of vectors."""


class CohereEmbedDialect:
    """Either version of the API."""

    def __init__(self, *, version: Literal["1", "2"]) -> None:
        self._version = version

    def parse(self, body: bytes) -> Asked:
        """Return what is asked; raises `BadRequest`."""
        asked = decode_json(_DECODER, body)
        forms: dict[Form, None] = dict.fromkeys(asked.embedding_types or ("float",))
        form, *more = forms
        is_plain = self._version == "1" and asked.embedding_types is None
        return (_PlainAsked if is_plain else Asked)(
            asked.texts,
            asked.model,
            form=form,
            dimensions=asked.output_dimension,
            role=role_of(asked.input_type),
            more_forms=tuple(more),
        )

    async def render(
        self, asked: Asked, answer: EmbeddingsResult, model: ModelInfo, total_s: float
    ) -> bytes:
        """Return the vectors in each type that is asked for."""
        tokens = sum(served.record.tokens for served in answer.served)
        vectors = [
            b"[%b]" % b",".join(await render_vectors(answer, form, asked.dimensions))
            for form in (asked.form, *asked.more_forms)
        ]
        if isinstance(asked, _PlainAsked):
            kind, embeddings = b"floats", vectors[0]
        else:
            names = (name.encode() for name in (asked.form, *asked.more_forms))
            named = zip(names, vectors, strict=True)
            kind, embeddings = b"by_type", b"{%b}" % b",".join(b'"%b":%b' % one for one in named)
        meta = CohereEmbedMeta(CohereVersion(self._version, False), CohereBilledUnits(tokens))
        return (
            b'{"response_type":"embeddings_%b","id":"%b","embeddings":%b,"texts":%b,"meta":%b}'
        ) % (
            kind,
            str(uuid.uuid4()).encode(),
            embeddings,
            msgspec.json.encode(asked.inputs),
            msgspec.json.encode(meta),
        )

    def frame(self, asked: Asked, model: ModelInfo, record: EmbeddingRecord) -> None:
        """Return None: each answer has an id of its own."""
