"""`POST /v1/embeddings` as the official OpenAI clients speak it."""

import asyncio
from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from cacheproxy.api.dialects.embedding import Asked, Text
from cacheproxy.api.dialects.embedding_options import ONE_SPELLING, EmbeddingOptions
from cacheproxy.api.dialects.protocol import ITEM_HEADERS, ITEM_REFUSALS
from cacheproxy.api.operation import Content, Operation, Reply
from cacheproxy.api.presentation import (
    CACHE_HEADERS,
    Body,
    VectorFrame,
    render_vectors,
)
from cacheproxy.api.request.body import decode_json
from cacheproxy.errors import BadRequest
from cacheproxy.records import EmbeddingRecord
from cacheproxy.routes.exchange import EmbeddingsResult, ModelInfo

_TokenIds = Annotated[list[int], Meta(min_length=1)]

_Inputs = Annotated[
    list[Text | int | _TokenIds],
    Meta(
        min_length=1,
        # `_inputs` checks this: the elements must be of one kind.
        extra_json_schema={
            "anyOf": [
                {"items": {"type": "string"}},
                {"items": {"type": "integer"}},
                {"items": {"type": "array"}},
            ]
        },
    ),
]


class EmbeddingsRequest(EmbeddingOptions, kw_only=True):
    """OpenAI's create-embeddings request. Fields that are not listed are ignored."""

    input: Annotated[
        Text | _Inputs,
        Meta(
            description="What to embed: a text, texts, the token ids of one text, or lists of "
            "token ids. The settings `limits.inputs` and `limits.characters` bound their number "
            "and length. Token ids may be the model's own, or those of `cl100k_base` or "
            "`o200k_base`, which are embedded as the text that they stand for. Ids that are of "
            "none of these, or may be of several, are refused."
        ),
    ]
    model: Annotated[str, Meta(description="A model that `GET /v1/models` lists, or an alias.")]
    encoding_format: Annotated[
        Literal["float", "base64"] | None,
        Meta(description="How vectors are written; base64 is of little-endian float32."),
    ] = None
    dimensions: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(
            description="Length to which vectors are cut before they are normalised again; at "
            "most the model's."
        ),
    ] = None
    user: Annotated[str | None, Meta(description="Accepted and ignored.")] = None


class Embedding(msgspec.Struct):
    """One input's vector, of unit length unless it is of integers."""

    object: Literal["embedding"]
    index: Annotated[int, Meta(description="The position of the input in the request.")]
    embedding: Annotated[
        list[float] | str, Meta(description="Numbers, or base64 of little-endian float32.")
    ]


class EmbeddingsUsage(msgspec.Struct):
    """The tokens that the model reads of the inputs, cached or not."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsResponse(msgspec.Struct):
    """OpenAI's list of embeddings, in the order of the inputs."""

    object: Literal["list"]
    data: list[Embedding]
    model: Annotated[str, Meta(description="The model's own name, not the alias.")]
    usage: EmbeddingsUsage


CREATE_EMBEDDINGS = Operation(
    method="POST",
    path="/v1/embeddings",
    id="createEmbeddings",
    tag="Embeddings",
    summary="Embed texts, as OpenAI does",
    description="""
    Each input is looked up in the hot, the exact and the semantic tier. The model computes only
    what none of them has. A semantic hit is the vector of a similar text; the server serves one
    only within its promised error.
    """,
    headers=ITEM_HEADERS,
    body=Content(
        Annotated[EmbeddingsRequest, Meta(extra_json_schema=ONE_SPELLING)],
        {
            "One text": {"input": "What is a cache stampede?", "model": "all-MiniLM-L6-v2"},
            "Texts, shorter vectors": {
                "input": ["first text", "second text"],
                "model": "all-MiniLM-L6-v2",
                "encoding_format": "base64",
                "dimensions": 128,
            },
            "A query, as integers": {
                "input": "What is a cache stampede?",
                "model": "all-MiniLM-L6-v2",
                "input_type": "query",
                "output_dtype": "int8",
            },
        },
    ),
    replies={
        200: Reply(
            "The embeddings.",
            (
                Content(
                    EmbeddingsResponse,
                    {
                        "Cut to two dimensions": {
                            "object": "list",
                            "data": [{"object": "embedding", "index": 0, "embedding": [0.6, -0.8]}],
                            "model": "all-MiniLM-L6-v2",
                            "usage": {"prompt_tokens": 9, "total_tokens": 9},
                        }
                    },
                ),
            ),
            CACHE_HEADERS,
        ),
        **ITEM_REFUSALS,
    },
)

_DECODER = msgspec.json.Decoder(EmbeddingsRequest)

PIECE = 512
"""Vectors joined at a time, 1 to 4 MB: a copy of 2,048 takes up to 10 ms, and each piece waits
until the client has taken most of the one before."""

_HEAD = b'{"object":"list","data":['
_ITEM = b'{"object":"embedding","index":%d,"embedding":'
_NEXT_ITEM = b"}," + _ITEM


class OpenAIDialect:
    """OpenAI's create-embeddings request and response."""

    def parse(self, body: bytes) -> Asked:
        """Return what is asked; raises `BadRequest`."""
        asked = decode_json(_DECODER, body)
        return Asked(
            inputs=_inputs(asked.input),
            model=asked.model,
            form=asked.form(asked.encoding_format or "float"),
            dimensions=asked.dimensions,
            role=asked.role,
        )

    async def render(
        self, asked: Asked, answer: EmbeddingsResult, model: ModelInfo, total_s: float
    ) -> Body:
        """Return OpenAI's list object, with the tokens that the model read as usage."""
        vectors = await render_vectors(answer, asked.form, asked.dimensions)
        tail = _tail(model.name, sum([served.record.tokens for served in answer.served]))
        if len(vectors) <= PIECE:
            return b"".join((*_items(vectors, 0), tail))
        pieces = []
        for start in range(0, len(vectors), PIECE):
            pieces.append(b"".join(_items(vectors[start : start + PIECE], start)))
            await asyncio.sleep(0)
        return [*pieces, tail]

    def frame(self, asked: Asked, model: ModelInfo, record: EmbeddingRecord) -> VectorFrame | None:
        """Return the frame of the answer to one input, unless its vector is to be cut."""
        if asked.dimensions is not None:
            return None
        return VectorFrame(_HEAD + _ITEM % 0, asked.form, _tail(model.name, record.tokens))


def _items(vectors: Sequence[bytes], start: int) -> list[bytes]:
    """Return the parts of an answer that hold these vectors, the first of which is number start."""
    parts = [] if start else [_HEAD]
    for i, vector in enumerate(vectors, start):
        parts += (_NEXT_ITEM % i if i else _ITEM % i, vector)
    return parts


def _tail(model: str, tokens: int) -> bytes:
    usage = b'"usage":{"prompt_tokens":%d,"total_tokens":%d}' % (tokens, tokens)
    return b'}],"model":%b,%b}' % (msgspec.json.encode(model), usage)


def _inputs(given: str | list[str | int | list[int]]) -> list[str | list[int]]:
    if isinstance(given, str):
        return [given]
    texts = [value for value in given if isinstance(value, str)]
    ids = [value for value in given if isinstance(value, int)]
    lists = [value for value in given if isinstance(value, list)]
    if given and len(ids) == len(given):
        return [ids]
    if len(texts) == len(given):
        return [*texts]
    if len(lists) == len(given):
        return [*lists]
    raise BadRequest("'input' must not mix texts and token ids", param="input")
