"""Embeds rows in order, with a bounded number of them under way.

What is under way at a time is called a batch. It travels as several requests, so that neither a
server nor the threads of this process wait while an answer is being kept. A row counts as under way
until the caller asks for the next answer: what the caller has not kept when the process is killed
is at most one batch, however large the corpus is.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple, Protocol

from cacheproxy.concurrency.background import stop_tasks
from cacheproxy.ingest.rows import Embedded, Row, Vector

_READ_ROWS = 128
"""Rows that are read and measured together."""


class Measured(NamedTuple):
    """A text as an embedder takes it, and how much work it is."""

    given: Any
    tokens: int


class Refused(NamedTuple):
    """A text that cannot be embedded."""

    reason: str


class Embedder(Protocol):
    """Embeds texts, in this process or by a server; an asynchronous context manager.

    Attributes:
        model: its name.
        fingerprint: changes whenever vectors may have changed; empty if unknown.
    """

    model: str
    fingerprint: str

    async def __aenter__(self) -> "Embedder": ...

    async def __aexit__(self, *_: object) -> None: ...

    def measure(self, texts: Sequence[str]) -> list[Measured]:
        """Prepare texts; it runs beside the event loop."""

    async def embed(self, texts: Sequence[Measured]) -> list[Vector | Refused]:
        """Return a vector for each text, or why there is none; raises `CacheproxyError`."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is under way at a time.

    Attributes:
        batch_tokens: of all requests together.
        in_flight: requests.
        request_texts: in one request.
    """

    batch_tokens: int = 65_536
    in_flight: int = 4
    request_texts: int = 1_024


class _Part(NamedTuple):
    rows: list[Row]
    texts: list[Measured]


async def embedded(
    rows: Iterable[Row], embedder: Embedder, limits: Limits | None = None
) -> AsyncIterator[list[Embedded]]:
    """Yield the rows, answered and in order, in lists as their requests are answered.

    Raises:
        CacheproxyError: as the rows and the embedder do; what was yielded before is good.
    """
    limits = limits or Limits()
    parts = _parts(iter(rows), embedder, limits)
    pending: deque[tuple[_Part, asyncio.Task[list[Vector | Refused]]]] = deque()
    is_read = False
    try:
        while True:
            while not is_read and len(pending) < limits.in_flight:
                part = await asyncio.to_thread(next, parts, None)
                if part is None:
                    is_read = True
                else:
                    pending.append((part, asyncio.create_task(embedder.embed(part.texts))))
            if not pending:
                return
            part, answer = pending[0]
            found = await answer
            pending.popleft()
            yield _answered(part, found)
    finally:
        await stop_tasks(*(task for _, task in pending))


def _answered(part: _Part, found: Sequence[Vector | Refused]) -> list[Embedded]:
    answers = iter(found)
    result = []
    for row in part.rows:
        if row.text is None:
            result.append(Embedded(row, None, row.reason))
            continue
        answer = next(answers)
        if isinstance(answer, Refused):
            result.append(Embedded(row, None, answer.reason))
        else:
            result.append(Embedded(row, answer))
    return result


def _parts(rows: Iterator[Row], embedder: Embedder, limits: Limits) -> Iterator[_Part]:
    """Yield the rows of one request after the other."""
    most_tokens = max(1, limits.batch_tokens // limits.in_flight)
    part, tokens = _Part([], []), 0
    while some := list(islice(rows, _READ_ROWS)):
        measured = iter(embedder.measure([row.text for row in some if row.text is not None]))
        for row in some:
            text = None if row.text is None else next(measured)
            weight = 0 if text is None else text.tokens
            is_full = tokens + weight > most_tokens or len(part.rows) >= limits.request_texts
            if part.rows and is_full:
                yield part
                part, tokens = _Part([], []), 0
            part.rows.append(row)
            if text is not None:
                part.texts.append(text)
            tokens += weight
    if part.rows:
        yield part
