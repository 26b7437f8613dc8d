"""`POST /embed` in its two forms: our own plain one, and text-embeddings-inference's.

{"texts": […]}            -> {"embeddings": […], "model": …, "latency_ms": …}
{"inputs": "…" or […]}    -> [[…], …]
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from cacheproxy.api.dialects.embedding import Asked, Text
from cacheproxy.api.dialects.embedding_options import ONE_SPELLING, EmbeddingOptions
from cacheproxy.api.dialects.protocol import ITEM_HEADERS, ITEM_REFUSALS
from cacheproxy.api.operation import Content, Operation, Reply
from cacheproxy.api.presentation import CACHE_HEADERS, render_vectors
from cacheproxy.api.request.body import decode_json
from cacheproxy.errors import BadRequest
from cacheproxy.records import EmbeddingRecord
from cacheproxy.routes.exchange import EmbeddingsResult, ModelInfo

_Texts = Annotated[list[Text], Meta(min_length=1)]

_ALWAYS = {"const": True}


class EmbedRequest(EmbeddingOptions, kw_only=True):
    """Texts to embed, in one of two forms. Fields that are not listed are ignored."""

    texts: Annotated[_Texts | None, Meta(description="The texts, in the plain form.")] = None
    inputs: Annotated[
        Text | _Texts | None,
        Meta(description="One text or several, in text-embeddings-inference's form."),
    ] = None
    model: Annotated[
        str | None, Meta(description="A model that `GET /v1/models` lists; else the server's own.")
    ] = None
    dimensions: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="Length to which vectors are cut; at most the model's."),
    ] = None
    normalize: Annotated[
        bool, Meta(description="Vectors are always normalised.", extra_json_schema=_ALWAYS)
    ] = True
    truncate: Annotated[
        bool, Meta(description="Long texts are always truncated.", extra_json_schema=_ALWAYS)
    ] = True
    truncation_direction: Annotated[
        Literal["right", "Right"] | None, Meta(description="Texts are truncated at their end.")
    ] = None


# `EmbedDialect.parse` checks this: one of the two is given.
_OneForm = Annotated[
    EmbedRequest,
    Meta(
        extra_json_schema={
            **ONE_SPELLING,
            "oneOf": [
                {"required": [name], "properties": {name: {"not": {"type": "null"}}}}
                for name in ("texts", "inputs")
            ],
        }
    ),
]


class EmbedResponse(msgspec.Struct):
    """The answer to `texts`: vectors in the order of the texts, of unit length unless integers."""

    embeddings: list[list[float]]
    model: Annotated[str, Meta(description="The model's own name.")]
    latency_ms: Annotated[float, Meta(description="Time from the body's arrival to the answer.")]


EMBED = Operation(
    method="POST",
    path="/embed",
    id="embed",
    tag="Embeddings",
    summary="Embed texts, plainly or as text-embeddings-inference does",
    description="""
    Give either `texts` or `inputs`; the answer has the form that belongs to it. The tiers are those
    of `/v1/embeddings`, and so are the entries.
    """,
    headers=ITEM_HEADERS,
    body=Content(
        _OneForm,
        {
            "Plain": {"texts": ["first text", "second text"]},
            "As text-embeddings-inference": {"inputs": "What is a cache stampede?"},
        },
    ),
    replies={
        200: Reply(
            "An object as the answer to `texts`, an array of vectors as the answer to `inputs`.",
            (
                Content(
                    EmbedResponse | list[list[float]],
                    {
                        "Plain": {
                            "embeddings": [[0.6, -0.8]],
                            "model": "all-MiniLM-L6-v2",
                            "latency_ms": 0.612,
                        },
                        "As text-embeddings-inference": [[0.6, -0.8]],
                    },
                ),
            ),
            CACHE_HEADERS,
        ),
        **ITEM_REFUSALS,
    },
)

_DECODER = msgspec.json.Decoder(EmbedRequest)


class _PlainAsked(Asked):
    """A request in our own form, which is answered in the same form."""


class EmbedDialect:
    """Both forms; the name of the inputs tells which one is meant."""

    def parse(self, body: bytes) -> Asked:
        """Return what is asked; raises `BadRequest`."""
        asked = decode_json(_DECODER, body)
        if not asked.normalize:
            raise BadRequest("vectors are always normalised", param="normalize")
        if not asked.truncate:
            raise BadRequest("long texts are always truncated", param="truncate")
        if (asked.texts is None) == (asked.inputs is None):
            raise BadRequest("give either 'texts' or 'inputs'", param="texts")
        kind = Asked if asked.texts is None else _PlainAsked
        inputs = [asked.inputs] if isinstance(asked.inputs, str) else asked.inputs
        return kind(
            asked.texts or inputs or [],
            asked.model,
            form=asked.form(),
            dimensions=asked.dimensions,
            role=asked.role,
        )

    async def render(
        self, asked: Asked, answer: EmbeddingsResult, model: ModelInfo, total_s: float
    ) -> bytes:
        """Return the body in the form in which the request was made."""
        joined = b",".join(await render_vectors(answer, asked.form, asked.dimensions))
        if not isinstance(asked, _PlainAsked):
            return b"[%b]" % joined
        return b'{"embeddings":[%b],"model":%b,"latency_ms":%.3f}' % (
            joined,
            msgspec.json.encode(model.name),
            total_s * 1000,
        )

    def frame(self, asked: Asked, model: ModelInfo, record: EmbeddingRecord) -> None:
        """Return None: answers contain the time that they took, and so they differ."""
