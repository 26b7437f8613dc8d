"""Scores by an upstream's rerank route: Jina's form of a request, which vLLM and Cohere also take.

The documents of one request that are not cached are sent together, and all their scores are asked
for. They are stored as they come. So only a model that scores each document by itself may be cached
like this: one whose score of a document depends on the others (listwise) would be answered with
scores from another list.
"""

import asyncio
import math
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from cacheproxy.inference.engine import Given, Inferred
from cacheproxy.inference.input import Input, Pair
from cacheproxy.inference.queue import Reservation
from cacheproxy.keys import KeyScope
from cacheproxy.upstreams.fallback import Upstreams
from cacheproxy.upstreams.item_calls import ItemCalls, shares


class _Result(msgspec.Struct):
    index: int
    relevance_score: float


class _Usage(msgspec.Struct):
    total_tokens: int = 0


class _Tokens(msgspec.Struct):
    input_tokens: float = 0


class _Meta(msgspec.Struct):
    tokens: _Tokens | None = None


class _RerankBody(msgspec.Struct):
    """Jina and vLLM count tokens in `usage`, Cohere in `meta`."""

    results: list[_Result]
    usage: _Usage | None = None
    meta: _Meta | None = None

    @property
    def tokens(self) -> int:
        if self.usage is not None:
            return self.usage.total_tokens
        tokens = self.meta.tokens if self.meta is not None else None
        return 0 if tokens is None else int(tokens.input_tokens)


_ANSWER = msgspec.json.Decoder(_RerankBody)


class UpstreamReranker:
    """An `Engine` (see there for the methods): one reranker, from all upstreams that serve it."""

    is_overloaded = False

    def __init__(self, upstreams: Upstreams, model: str) -> None:
        self._model = model
        self._calls = ItemCalls(upstreams, model, "rerank", write=self._write, read=self._results)

    def encode(self, inputs: Sequence[Input]) -> Sequence[Sequence[int]]:
        """Return no ids: the upstream reads the texts itself."""
        return [()] * len(inputs)

    def is_cut(self, ids: Sequence[int]) -> bool:
        """Return False: it is not known."""
        return False

    def probe_sees_all(self, ids: Sequence[int]) -> bool:
        """Return False: there is no probe."""
        return False

    def key_of(self, scope: KeyScope, given: Given) -> bytes:
        """Return the key of the query, the document and how they are truncated."""
        return scope.of_raw(_pair(given))

    def begin(self, tokens: int) -> None:
        """Admit everything: the upstream enforces its own limits."""

    def end(self, reservation: Reservation) -> None:
        """Do nothing: nothing is reserved."""

    def submit(
        self, givens: Sequence[Given], reservation: Reservation | None = None
    ) -> list[asyncio.Future[Inferred]]:
        """Request the scores of documents of one query together."""
        together: dict[Pair, list[int]] = {}
        for i, given in enumerate(givens):
            together.setdefault(_pair(given)._replace(document=""), []).append(i)
        return self._calls.submit(givens, together.values())

    def read(self, result: Inferred, given: Given) -> Inferred:
        """Return the result unchanged."""
        return result

    def _write(self, givens: Sequence[Given]) -> dict[str, Any]:
        pairs = [_pair(given) for given in givens]
        first = pairs[0]
        body: dict[str, Any] = {
            "model": self._model,
            "query": first.query,
            "documents": [pair.document for pair in pairs],
        }
        if first.document_tokens:
            body["max_tokens_per_doc"] = first.document_tokens
        if first.most_tokens:
            body["truncate_prompt_tokens"] = first.most_tokens
        return body

    def _results(self, givens: Sequence[Given], data: bytes) -> list[Inferred]:
        """Return the results in order; raises `ValueError` if they do not match the request."""
        answer = _ANSWER.decode(data)
        rows = sorted(answer.results, key=lambda row: row.index)
        if [row.index for row in rows] != list(range(len(givens))):
            raise ValueError("there is not one score for each document")
        if not all(math.isfinite(row.relevance_score) for row in rows):
            raise ValueError("a score is not finite")
        sizes = [len(_pair(given).query) + len(_pair(given).document) for given in givens]
        tokens = shares(answer.tokens, sizes)
        return [
            Inferred(np.array([row.relevance_score]), share)
            for row, share in zip(rows, tokens, strict=True)
        ]


def _pair(given: Given) -> Pair:
    if not isinstance(given.input, Pair):
        raise TypeError("only pairs of a query and a document are reranked")
    return given.input
