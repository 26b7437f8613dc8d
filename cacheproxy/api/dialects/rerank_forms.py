"""The rerank routes in their providers' forms: Jina's and vLLM's, Cohere's, and TEI's.

TEI is Hugging Face's text-embeddings-inference. Its path, `/rerank`, is also vLLM's, so that one
answers a request with `documents` as Jina does.
"""

import uuid

import msgspec
from msgspec import UNSET

from cacheproxy.api.dialects.protocol import ITEM_HEADERS, ITEM_REFUSALS
from cacheproxy.api.dialects.rerank import (
    RerankAsked,
    Truncation,
    ranking,
    tokens_of,
)
from cacheproxy.api.dialects.rerank_schemas import (
    CohereMeta,
    CohereRerankRequest,
    CohereRerankResponse,
    CohereTokens,
    CohereVersion,
    JinaOptions,
    RerankDocument,
    RerankRequest,
    RerankResponse,
    RerankResult,
    RerankUsage,
    TeiRank,
    TeiRerankRequest,
    TextsOrDocuments,
)
from cacheproxy.api.operation import Content, Operation, Reply
from cacheproxy.api.presentation import CACHE_HEADERS
from cacheproxy.api.request.body import decode_json
from cacheproxy.errors import BadRequest
from cacheproxy.inference.input import Keeps
from cacheproxy.routes.exchange import ItemsResult, ModelInfo
from cacheproxy.routes.scores import ScoreRecord

Answer = ItemsResult[ScoreRecord]

_QUESTION = "What is a cache stampede?"
_DOCUMENTS = ["Many requests that miss at once.", "A breed of horses."]
_RESULT = {"index": 0, "relevance_score": 0.93}
_DESCRIPTION = """
The score of each pair of the query and a document is looked up in the hot and the exact tier. The
model scores only the pairs that neither has, so that a changed list of candidates costs no more
than its new documents. Scores have no semantic tier.
"""
_ANSWER = {
    "id": "rerank-0f9f4bd5",
    "object": "list",
    "model": "ms-marco-MiniLM-L-6-v2",
    "usage": {"prompt_tokens": 31, "total_tokens": 31},
    "results": [{**_RESULT, "document": {"text": _DOCUMENTS[0]}}],
}

RERANK = Operation(
    method="POST",
    path="/v1/rerank",
    id="rerank",
    tag="Rerank",
    summary="Rank documents by a query, as Jina and vLLM do",
    description=_DESCRIPTION,
    headers=ITEM_HEADERS,
    body=Content(
        RerankRequest, {"Two documents": {"query": _QUESTION, "documents": _DOCUMENTS, "top_n": 1}}
    ),
    replies={
        200: Reply(
            "The documents, best first.",
            (Content(RerankResponse, {"The best": _ANSWER}),),
            CACHE_HEADERS,
        ),
        **ITEM_REFUSALS,
    },
)

RERANK_COHERE = Operation(
    method="POST",
    path="/v2/rerank",
    id="rerankCohere",
    tag="Rerank",
    summary="Rank documents by a query, as Cohere does",
    description=_DESCRIPTION,
    headers=ITEM_HEADERS,
    body=Content(
        CohereRerankRequest,
        {"Two documents": {"query": _QUESTION, "documents": _DOCUMENTS, "top_n": 1}},
    ),
    replies={
        200: Reply(
            "The documents, best first.",
            (
                Content(
                    CohereRerankResponse,
                    {
                        "The best": {
                            "id": "0f9f4bd5",
                            "results": [_RESULT],
                            "meta": {
                                "api_version": {"version": "2", "is_experimental": False},
                                "tokens": {"input_tokens": 31},
                            },
                        }
                    },
                ),
            ),
            CACHE_HEADERS,
        ),
        **ITEM_REFUSALS,
    },
)

RERANK_TEI = Operation(
    method="POST",
    path="/rerank",
    id="rerankTexts",
    tag="Rerank",
    summary="Rank texts by a query, as text-embeddings-inference does",
    description=_DESCRIPTION
    + "A request with `documents` in place of `texts` is read and answered as at `/v1/rerank`.\n",
    headers=ITEM_HEADERS,
    body=Content(
        TextsOrDocuments,
        {"Two texts": {"query": _QUESTION, "texts": _DOCUMENTS}},
    ),
    replies={
        200: Reply(
            "An array of ranks, best first, as the answer to `texts`; an object as that to "
            "`documents`.",
            (
                Content(
                    list[TeiRank] | RerankResponse,
                    {"The texts": [{"index": 0, "score": 0.93}], "The documents": _ANSWER},
                ),
            ),
            CACHE_HEADERS,
        ),
        **ITEM_REFUSALS,
    },
)

_JINA = msgspec.json.Decoder(RerankRequest)
_COHERE = msgspec.json.Decoder(CohereRerankRequest)
_TEI = msgspec.json.Decoder(TeiRerankRequest)

_COHERE_VERSION = CohereVersion("2", False)


class _Unframed:
    """A dialect whose answers differ even to equal requests, by their ids or their options."""

    def frame(self, asked: RerankAsked, model: ModelInfo, record: ScoreRecord) -> None:
        """Return None."""


class JinaDialect(_Unframed):
    """Jina's and vLLM's requests and answers."""

    def parse(self, body: bytes) -> RerankAsked:
        """Return what is asked; raises `BadRequest`."""
        asked = decode_json(_JINA, body)
        return _of_jina(asked, asked.documents)

    async def render(
        self, asked: RerankAsked, answer: Answer, model: ModelInfo, total_s: float
    ) -> bytes:
        """Return the results, best first."""
        tokens = tokens_of(answer)
        return msgspec.json.encode(
            RerankResponse(
                id=f"rerank-{uuid.uuid4().hex}",
                object="list",
                model=model.name,
                usage=RerankUsage(tokens, tokens),
                results=_results(asked, answer, model),
            )
        )


class CohereDialect(_Unframed):
    """Cohere's requests and answers, of the second version of its API."""

    def parse(self, body: bytes) -> RerankAsked:
        """Return what is asked; raises `BadRequest`."""
        asked = decode_json(_COHERE, body)
        return RerankAsked(
            asked.query,
            _texts(asked.documents),
            model=asked.model,
            top_n=asked.top_n,
            has_documents=asked.return_documents,
            truncation=Truncation(document_tokens=asked.max_tokens_per_doc or 0),
        )

    async def render(
        self, asked: RerankAsked, answer: Answer, model: ModelInfo, total_s: float
    ) -> bytes:
        """Return the results, best first."""
        meta = CohereMeta(_COHERE_VERSION, CohereTokens(tokens_of(answer)))
        results = _results(asked, answer, model)
        return msgspec.json.encode(CohereRerankResponse(str(uuid.uuid4()), results, meta))


class TeiDialect(_Unframed):
    """text-embeddings-inference's requests and answers, and vLLM's on the same path."""

    _vllm = JinaDialect()

    def parse(self, body: bytes) -> RerankAsked:
        """Return what is asked; raises `BadRequest`."""
        asked = decode_json(_TEI, body)
        if (asked.texts is None) == (asked.documents is None):
            raise BadRequest("give either 'texts' or 'documents'", param="texts")
        if asked.documents is not None:
            return _of_jina(asked, asked.documents)
        keeps: Keeps = "start"
        if asked.truncate is False:
            keeps = "all"
        elif asked.truncation_direction.lower() == "left":
            keeps = "end"
        return RerankAsked(
            asked.query,
            asked.texts or (),
            model=asked.model,
            has_documents=asked.return_text,
            is_raw=asked.raw_scores,
            truncation=Truncation(keeps=keeps),
            param="texts",
        )

    async def render(
        self, asked: RerankAsked, answer: Answer, model: ModelInfo, total_s: float
    ) -> bytes:
        """Return the results, best first, in the form in which they were asked for."""
        if asked.param == "documents":
            return await self._vllm.render(asked, answer, model, total_s)
        return msgspec.json.encode(
            [
                TeiRank(i, score, asked.documents[i] if asked.has_documents else UNSET)
                for i, score in ranking(asked, answer, model)
            ]
        )


def _of_jina(asked: JinaOptions, documents: list[str | RerankDocument]) -> RerankAsked:
    return RerankAsked(
        asked.query,
        _texts(documents),
        model=asked.model,
        top_n=asked.top_n or None,
        has_documents=asked.return_documents is not False,
        is_raw=asked.use_activation is False,
        truncation=Truncation(
            most_tokens=max(asked.truncate_prompt_tokens or 0, 0),
            document_tokens=asked.max_tokens_per_doc or 0,
        ),
    )


def _texts(documents: list[str | RerankDocument]) -> list[str]:
    return [one if isinstance(one, str) else one.text for one in documents]


def _results(asked: RerankAsked, answer: Answer, model: ModelInfo) -> list[RerankResult]:
    return [
        RerankResult(i, score, RerankDocument(asked.documents[i]) if asked.has_documents else UNSET)
        for i, score in ranking(asked, answer, model)
    ]
