"""What is asked of any rerank route, and how the answer is ranked; `rerank_forms` has the JSON.

A score is kept as the model gave it. What is asked of its form is applied here: the logistic
function, which turns a local model's scores into relevance from 0 to 1, and how many are returned.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from cacheproxy.api.dialects.protocol import InputLimits, Prepared
from cacheproxy.errors import BadRequest
from cacheproxy.inference.input import Keeps, Pair
from cacheproxy.routes.exchange import ItemsResult, ModelInfo
from cacheproxy.routes.scores import ScoreRecord


class Truncation(NamedTuple):
    """How texts that are too long are truncated; the fields are those of `Pair`."""

    most_tokens: int = 0
    document_tokens: int = 0
    keeps: Keeps = "start"


class RerankAsked(NamedTuple):
    """A request's parsed body.

    Attributes:
        query: what the documents are ranked by.
        documents: the candidates.
        model: the model's name; None takes the server's default.
        top_n: how many results to return; None returns all.
        has_documents: whether results repeat their documents.
        is_raw: whether scores are returned without the logistic function.
        truncation: of long texts.
        param: the name of `documents` in the request.
    """

    query: str
    documents: Sequence[str]
    model: str | None = None
    top_n: int | None = None
    has_documents: bool = False
    is_raw: bool = False
    truncation: Truncation = Truncation()
    param: str = "documents"


class Ranked(NamedTuple):
    """A document's place in the request, and its score."""

    place: int
    score: float


def ranking(asked: RerankAsked, answer: ItemsResult[ScoreRecord], model: ModelInfo) -> list[Ranked]:
    """Return the best documents, best first; of equal ones the first."""
    scores = [served.record.score for served in answer.served]
    order = sorted(range(len(scores)), key=lambda i: -scores[i])[: asked.top_n]
    # An upstream's scores come as it gives them; it has applied what its model asks for.
    as_is = asked.is_raw or not model.is_local
    return [Ranked(i, scores[i] if as_is else _logistic(scores[i])) for i in order]


def tokens_of(answer: ItemsResult[ScoreRecord]) -> int:
    """Return how many tokens the model read, or would have read, for the answer."""
    return sum(served.record.tokens for served in answer.served)


def _logistic(score: float) -> float:
    if score >= 0:
        return 1 / (1 + math.exp(-score))
    return math.exp(score) / (1 + math.exp(score))  # without an overflow


class RerankPreparation:
    """Checks limits and options, and pairs the query with each document."""

    def __init__(self, limits: InputLimits) -> None:
        self._limits = limits

    async def prepare(self, asked: RerankAsked, model: ModelInfo, caller: str) -> Prepared:
        """Return the pairs in the order of the documents; raises `BadRequest`."""
        self._limits.check([asked.query], "query")
        self._limits.check(asked.documents, asked.param)
        if not model.is_local:
            _check_passed_on(asked)
        return Prepared([Pair(asked.query, one, *asked.truncation) for one in asked.documents], [])


def _check_passed_on(asked: RerankAsked) -> None:
    if asked.is_raw:
        raise BadRequest(
            "raw scores of a model of an upstream are not known here", code="unsupported_option"
        )
    if asked.truncation.keeps != "start":
        raise BadRequest(
            "how to truncate is not passed on to the upstream that has this model",
            code="unsupported_option",
        )
