"""Embeddings by an upstream: the texts of one request are sent together, as the client gave them.

Vectors are stored unchanged. The upstream reports one token count for all texts of a call; each
text gets a share in proportion to its length, so that the sum equals the upstream's count.
"""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import numpy as np

from cacheproxy.errors import ApiError, Overloaded, UpstreamFailed
from cacheproxy.inference.engine import Given, Inferred, Tasks
from cacheproxy.inference.input import Input
from cacheproxy.inference.queue import Reservation
from cacheproxy.inference.tokenizer import Tokenizer
from cacheproxy.keys import KeyScope
from cacheproxy.records import is_usable
from cacheproxy.upstreams.client import Head
from cacheproxy.upstreams.fallback import Upstreams

_MOST_INPUTS = 256
"""The most inputs in one call."""

_RETRY_AFTER = b"retry-after"


class _Item(msgspec.Struct):
    index: int
    embedding: list[float]


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0


class _EmbeddingsBody(msgspec.Struct):
    data: list[_Item]
    usage: _Usage = msgspec.field(default_factory=_Usage)


class _Error(msgspec.Struct):
    message: str = ""
    code: str | int | None = None


class _Refusal(msgspec.Struct):
    error: _Error


_ANSWER = msgspec.json.Decoder(_EmbeddingsBody)
_REFUSAL = msgspec.json.Decoder(_Refusal)


class UpstreamEngine:
    """An `Engine` (see there for the methods): one model, from all upstreams that serve it."""

    is_overloaded = False

    def __init__(
        self, upstreams: Upstreams, model: str, dimensions: int, tokenizer: Tokenizer
    ) -> None:
        """Serve a model of `dimensions` from upstreams; `tokenizer` is the probe's."""
        self._tokenizer = tokenizer
        self._upstreams = upstreams
        self._model = model
        self._dimensions = dimensions
        self._calls = Tasks()

    def encode(self, inputs: Sequence[Input]) -> Sequence[Sequence[int]]:
        """Return the probe's ids of texts; of token ids none, as their vocabulary is unknown."""
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
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[Inferred]] = [loop.create_future() for _ in givens]
        for kind in (str, list):
            places = [i for i, given in enumerate(givens) if isinstance(given.input, kind)]
            for start in range(0, len(places), _MOST_INPUTS):
                part = places[start : start + _MOST_INPUTS]
                waiting = [futures[i] for i in part]
                self._calls.start(self._answer([givens[i] for i in part], waiting), waiting)
        return futures

    def read(self, result: Inferred, given: Given) -> Inferred:
        """Return the result unchanged."""
        return result

    async def _answer(
        self, givens: Sequence[Given], futures: Sequence[asyncio.Future[Inferred]]
    ) -> None:
        try:
            results = await self._ask(givens)
        except ApiError as error:
            for future in futures:
                if not future.done():
                    future.set_exception(error)
            return
        for future, result in zip(futures, results, strict=True):
            if not future.done():
                future.set_result(result)

    async def _ask(self, givens: Sequence[Given]) -> list[Inferred]:
        inputs = [given.input for given in givens]
        body = msgspec.json.encode(
            {"model": self._model, "input": inputs, "encoding_format": "float"}
        )
        answer = await self._upstreams.post(self._model, "embeddings", body, {})
        try:
            data = await answer.read()
        except UpstreamFailed as error:
            kind = (error.code or "").removeprefix("upstream_")
            self._upstreams.broke_off(answer.head.upstream, kind)
            raise
        finally:
            answer.close()
        if answer.head.status != 200:
            raise _refused(answer.head, data)
        try:
            return self._results(givens, _ANSWER.decode(data))
        except (msgspec.MsgspecError, UnicodeDecodeError, ValueError) as error:
            self._upstreams.broke_off(answer.head.upstream, "malformed")
            raise UpstreamFailed(
                f"the upstream failed: its answer does not hold the requested embeddings ({error})",
                code="upstream_malformed",
            ) from None

    def _results(self, givens: Sequence[Given], answer: _EmbeddingsBody) -> list[Inferred]:
        """Return the results in order; raises `ValueError` if they do not match the request."""
        rows = sorted(answer.data, key=lambda item: item.index)
        if [item.index for item in rows] != list(range(len(givens))):
            raise ValueError("there is not one for each input")
        vectors = [np.array(item.embedding, np.float32) for item in rows]
        if any(vector.shape != (self._dimensions,) for vector in vectors):
            raise ValueError(f"a vector does not have {self._dimensions} dimensions")
        if not all(is_usable(vector) for vector in vectors):
            raise ValueError("not finite")
        tokens = _shares(answer.usage.prompt_tokens, [max(1, len(given.input)) for given in givens])
        return [Inferred(vector, share) for vector, share in zip(vectors, tokens, strict=True)]


def _shares(total: int, sizes: Sequence[int]) -> list[int]:
    """Divide a total into integers in proportion to the sizes; their sum is the total."""
    whole = sum(sizes)
    ends = [round(total * end / whole) for end in _sums(sizes)]
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]


def _sums(sizes: Iterable[int]) -> list[int]:
    sums, sum_so_far = [], 0
    for size in sizes:
        sum_so_far += size
        sums.append(sum_so_far)
    return sums


def _refused(head: Head, data: bytes) -> ApiError:
    """Return an upstream's error as one of ours, with its message, code and Retry-After."""
    try:
        said = _REFUSAL.decode(data).error
    except (msgspec.MsgspecError, UnicodeDecodeError):
        said = _Error()
    message = said.message or f"the upstream answered {head.status}"
    code = None if said.code is None else str(said.code)
    kind: type[ApiError] = Overloaded if head.status == 429 else UpstreamFailed
    return kind(message, status=head.status, code=code, retry_after_s=_retry_after_s(head))


def _retry_after_s(head: Head) -> float | None:
    value: Any = dict(head.headers).get(_RETRY_AFTER)
    return float(value) if value is not None and value.isdigit() else None
