"""Calls of upstreams that compute items: one call for a part of a request's inputs.

An upstream reports one token count for all inputs of a call; each input gets a share in proportion
to its length, so that the sum equals the upstream's count.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from cacheproxy.errors import ApiError, Overloaded, UpstreamFailed
from cacheproxy.inference.engine import Given, Inferred, Tasks
from cacheproxy.upstreams.fallback import Upstreams
from cacheproxy.upstreams.head import Head

MOST_INPUTS = 256
"""The most inputs in one call."""

_MOST_TOKENS = 2**31
"""A count of tokens beyond this is none."""

_RETRY_AFTER = b"retry-after"


class _Error(msgspec.Struct):
    message: str = ""
    code: str | int | None = None


class _Refusal(msgspec.Struct):
    error: _Error


_REFUSAL = msgspec.json.Decoder(_Refusal)

Givens = Sequence[Given]


class ItemCalls:
    """The calls for one model, by all upstreams that serve it."""

    def __init__(
        self,
        upstreams: Upstreams,
        model: str,
        path: str,
        *,
        write: Callable[[Givens], Any],
        read: Callable[[Givens, bytes], list[Inferred]],
    ) -> None:
        """Prepare.

        Args:
            upstreams: all of them.
            model: its name there.
            path: of the calls, below the base URL.
            write: returns what is sent for some inputs, as JSON.
            read: returns the results in an answer, one for each input, in order; raises
                `ValueError`, also msgspec's, if it does not hold them.
        """
        self._upstreams = upstreams
        self._model = model
        self._path = path
        self._write = write
        self._read = read
        self._tasks = Tasks()

    def submit(
        self, givens: Givens, parts: Iterable[Sequence[int]]
    ) -> list[asyncio.Future[Inferred]]:
        """Make a call for each part, which has the places of its inputs; parts may be long."""
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[Inferred]] = [loop.create_future() for _ in givens]
        for places in parts:
            for start in range(0, len(places), MOST_INPUTS):
                part = places[start : start + MOST_INPUTS]
                waiting = [futures[i] for i in part]
                self._tasks.start(self._answer([givens[i] for i in part], waiting), waiting)
        return futures

    async def _answer(self, givens: Givens, futures: Sequence[asyncio.Future[Inferred]]) -> None:
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

    async def _ask(self, givens: Givens) -> list[Inferred]:
        body = msgspec.json.encode(self._write(givens))
        answer = await self._upstreams.post(self._model, self._path, body, {})
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
            return self._read(givens, data)
        except (msgspec.MsgspecError, UnicodeDecodeError, ValueError) as error:
            self._upstreams.broke_off(answer.head.upstream, "malformed")
            raise UpstreamFailed(
                f"the upstream failed: its answer does not hold what was asked for ({error})",
                code="upstream_malformed",
            ) from None


def shares(total: int, sizes: Sequence[int]) -> list[int]:
    """Divide a total into integers in proportion to the sizes; their sum is the total.

    A size of 0 counts as 1.

    Raises:
        ValueError: the total is no count of tokens.
    """
    if not 0 <= total < _MOST_TOKENS:
        raise ValueError("a count of tokens that is none")
    sizes = [max(1, size) for size in sizes]
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
