"""Embeddings by an upstream: the texts of one request are sent together, as the client gave them.

Vectors are stored unchanged.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from cacheproxy.errors import BadRequest
from cacheproxy.inference.engine import Given, Inferred
from cacheproxy.inference.input import Input
from cacheproxy.inference.queue import Reservation
from cacheproxy.inference.tokenizer import Tokenizer
from cacheproxy.keys import KeyScope
from cacheproxy.records import is_usable
from cacheproxy.upstreams.fallback import Upstreams
from cacheproxy.upstreams.item_calls import ItemCalls, shares

_ANY_VOCABULARY = 2**32
"""Token ids are below; the largest vocabularies have some 2**18 tokens."""


class _Item(msgspec.Struct):
    index: int
    embedding: list[float]


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0


class _EmbeddingsBody(msgspec.Struct):
    data: list[_Item]
    usage: _Usage = msgspec.field(default_factory=_Usage)


_ANSWER = msgspec.json.Decoder(_EmbeddingsBody)


class UpstreamEngine:
    """An `Engine` (see there for the methods): one model, from all upstreams that serve it."""

    is_overloaded = False

    def __init__(
        self, upstreams: Upstreams, model: str, dimensions: int, tokenizer: Tokenizer
    ) -> None:
        """Serve a model of `dimensions` from upstreams; `tokenizer` is the probe's."""
        self._tokenizer = tokenizer
        self._model = model
        self._dimensions = dimensions
        self._calls = ItemCalls(
            upstreams, model, "embeddings", write=self._write, read=self._results
        )

    def encode(self, inputs: Sequence[Input]) -> Sequence[Sequence[int]]:
        """Return the probe's ids of texts; of token ids none, as their vocabulary is unknown.

        Raises:
            BadRequest: there are no token ids in a list, or one is outside any vocabulary.
        """
        for ids in inputs:
            if isinstance(ids, list) and not _may_be_ids(ids):
                most = _ANY_VOCABULARY - 1
                raise BadRequest(f"token ids are numbers from 0 to {most}", param="input")
        encoded = iter(self._tokenizer.encode([one for one in inputs if isinstance(one, str)]))
        return [next(encoded) if isinstance(given, str) else () for given in inputs]

    def is_cut(self, ids: Sequence[int]) -> bool:
        """Return False: the upstream reads the text itself, not these ids."""
        return False

    def probe_sees_all(self, ids: Sequence[int]) -> bool:
        """Return whether the probe's tokenizer kept the whole text, which the upstream reads."""
        return bool(ids) and not self._tokenizer.is_full(ids)

    def key_of(self, scope: KeyScope, given: Given) -> bytes:
        """Return the key of the text, byte for byte, or of the ids that the client gave."""
        if isinstance(given.input, list):
            return scope.of_ids(given.input)
        return scope.of_raw(given.input)

    def begin(self, tokens: int) -> None:
        """Admit everything: the upstream enforces its own limits."""

    def end(self, reservation: Reservation) -> None:
        """Do nothing: nothing is reserved."""

    def submit(
        self, givens: Sequence[Given], reservation: Reservation | None = None
    ) -> list[asyncio.Future[Inferred]]:
        """Request texts and lists of ids in separate calls."""
        return self._calls.submit(
            givens,
            [
                [i for i, given in enumerate(givens) if isinstance(given.input, kind)]
                for kind in (str, list)
            ],
        )

    def read(self, result: Inferred, given: Given) -> Inferred:
        """Return the result unchanged."""
        return result

    def _write(self, givens: Sequence[Given]) -> dict[str, Any]:
        inputs = [given.input for given in givens]
        return {"model": self._model, "input": inputs, "encoding_format": "float"}

    def _results(self, givens: Sequence[Given], data: bytes) -> list[Inferred]:
        """Return the results in order; raises `ValueError` if they do not match the request."""
        answer = _ANSWER.decode(data)
        rows = sorted(answer.data, key=lambda item: item.index)
        if [item.index for item in rows] != list(range(len(givens))):
            raise ValueError("there is not one for each input")
        vectors = [np.array(item.embedding, np.float32) for item in rows]
        if any(vector.shape != (self._dimensions,) for vector in vectors):
            raise ValueError(f"a vector does not have {self._dimensions} dimensions")
        if not all(is_usable(vector) for vector in vectors):
            raise ValueError("not finite")
        tokens = shares(answer.usage.prompt_tokens, [len(given.input) for given in givens])
        return [Inferred(vector, share) for vector, share in zip(vectors, tokens, strict=True)]


def _may_be_ids(ids: list[int]) -> bool:
    return bool(ids) and min(ids) >= 0 and max(ids) < _ANY_VOCABULARY
