"""The JSON of the rerank routes: requests and answers in each provider's form."""

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

_Query = Annotated[str, Meta(min_length=1, description="What the documents are ranked by.")]
_Model = Annotated[
    str | None,
    Meta(description="A reranker that `GET /v1/models` lists; else the server's first."),
]
_MOST_COUNT = 2**31 - 1
"""Of results or tokens; JSON has larger numbers, which are no integers to every reader."""

_TopN = Annotated[
    Annotated[int, Meta(ge=0, le=_MOST_COUNT)] | None,
    Meta(description="How many results to return; 0 or none given: all."),
]
_DocumentTokens = Annotated[
    Annotated[int, Meta(ge=1, le=_MOST_COUNT)] | None,
    Meta(description="Most tokens of a document that are read; the rest is cut off."),
]


class RerankDocument(msgspec.Struct):
    """A document as an object."""

    text: str


_Documents = Annotated[
    list[str | RerankDocument], Meta(min_length=1, description="The documents to rank.")
]


class JinaOptions(msgspec.Struct, kw_only=True):
    """What Jina's and vLLM's clients say beside the documents."""

    query: _Query
    model: _Model = None
    top_n: _TopN = None
    return_documents: Annotated[
        bool | None, Meta(description="Whether results repeat their documents; they do by default.")
    ] = None
    max_tokens_per_doc: _DocumentTokens = None
    truncate_prompt_tokens: Annotated[
        Annotated[int, Meta(ge=-1, le=_MOST_COUNT)] | None,
        Meta(description="Most tokens of a query and a document together; -1: the model's most."),
    ] = None
    use_activation: Annotated[
        bool | None,
        Meta(description="`false` returns scores as the model gives them; else they are 0 to 1."),
    ] = None


class RerankRequest(JinaOptions, kw_only=True):
    """Documents to rank, as Jina's and vLLM's clients ask. Fields not listed are ignored."""

    documents: _Documents


class CohereRerankRequest(msgspec.Struct, kw_only=True):
    """Documents to rank, as Cohere's clients ask. Fields not listed are ignored."""

    query: _Query
    documents: _Documents
    model: _Model = None
    top_n: Annotated[
        Annotated[int, Meta(ge=1, le=_MOST_COUNT)] | None,
        Meta(description="How many results to return; else all."),
    ] = None
    max_tokens_per_doc: _DocumentTokens = None
    return_documents: Annotated[
        bool, Meta(description="Whether results repeat their documents, as in Cohere's first API.")
    ] = False


class TeiRerankRequest(JinaOptions, kw_only=True):
    """Texts to rank, as text-embeddings-inference's clients ask, or `documents`, as vLLM's do.

    Fields not listed are ignored.
    """

    documents: _Documents | None = None
    texts: Annotated[
        Annotated[list[str], Meta(min_length=1)] | None,
        Meta(description="The texts to rank, in text-embeddings-inference's form."),
    ] = None
    raw_scores: Annotated[
        bool, Meta(description="Whether scores are those of the model; else they are 0 to 1.")
    ] = False
    return_text: Annotated[bool, Meta(description="Whether results repeat their texts.")] = False
    truncate: Annotated[
        bool | None, Meta(description="`false` refuses what the model cannot read as a whole.")
    ] = None
    truncation_direction: Annotated[
        Literal["right", "left", "Right", "Left"],
        Meta(description="From which end long texts are cut off."),
    ] = "right"


# `TeiDialect.parse` checks this: one of the two is given.
TextsOrDocuments = Annotated[
    TeiRerankRequest,
    Meta(
        extra_json_schema={
            "oneOf": [
                {"required": [name], "properties": {name: {"not": {"type": "null"}}}}
                for name in ("texts", "documents")
            ]
        }
    ),
]


class RerankResult(msgspec.Struct):
    """A document's place in the request, and its relevance from 0 to 1."""

    index: int
    relevance_score: float
    document: RerankDocument | UnsetType = UNSET


class RerankUsage(msgspec.Struct):
    """Tokens that the model read, or would have read."""

    prompt_tokens: int
    total_tokens: int


class RerankResponse(msgspec.Struct):
    """The documents, best first, as Jina and vLLM answer."""

    id: str
    object: Literal["list"]
    model: Annotated[str, Meta(description="The model's own name.")]
    usage: RerankUsage
    results: list[RerankResult]


class CohereVersion(msgspec.Struct):
    """The version of Cohere's API."""

    version: str
    is_experimental: bool


class CohereTokens(msgspec.Struct):
    """Tokens that the model read, or would have read."""

    input_tokens: int


class CohereMeta(msgspec.Struct):
    """What Cohere's clients expect to be told of a request."""

    api_version: CohereVersion
    tokens: CohereTokens


class CohereRerankResponse(msgspec.Struct):
    """The documents, best first, as Cohere answers."""

    id: str
    results: list[RerankResult]
    meta: CohereMeta


class TeiRank(msgspec.Struct):
    """A text's place in the request, and its score."""

    index: int
    score: float
    text: str | UnsetType = UNSET
