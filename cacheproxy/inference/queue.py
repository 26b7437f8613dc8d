"""Which texts are inferred next: groups of one length, fair between requests. No I/O, no clock.

Texts are grouped by exact length, so nothing is padded and no mask is needed. Between requests the
order is start-time fair queueing (Goyal, Vin and Cheng, 1996): a text's virtual start is the
number of tokens that its request queued before it, counted from the request's arrival, so that a
request of one text is never stuck behind one of 2,048. Virtual time is the start of the text that
is next in order, not that of the other texts in its group, whose later starts would put new
requests behind them.

The batching window is the longest time for which a fuller group may go ahead of the text that is
next in order. Nothing waits while a core is idle: one text uses a core nearly as well as eight do
(16 tokens: 24 against 29 thousand tokens/s), so a fixed wait would cost more than it saves. For the
same reason a group is no larger than one thread's share of all waiting texts, so that the last
groups of a batch end together. While several requests share the queue, groups are smaller, because
a new request waits for the groups in progress (64 tokens: 5 ms); groups of 256 tokens would cost an
eighth less.
"""

import asyncio
import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain, count

import numpy as np
from numpy.typing import NDArray

_SHARED_S = 1.0
"""How long the queue counts as shared after two requests were in it together."""

Ids = Sequence[int]
Vector = NDArray[np.float32]


@dataclass(slots=True)
class QueuedText:
    """A text that waits for inference.

    Attributes:
        ids: token ids as the model reads them.
        future: gets the vector, float32 [dim]; once it is cancelled the vector is not wanted.
        enqueued_at: monotonic seconds.
        request: number of the request that it belongs to.
    """

    ids: Ids
    future: asyncio.Future[Vector]
    enqueued_at: float = 0.0
    request: int = 0


@dataclass(slots=True)
class Reservation:
    """One request's place in the queue: its number, and the virtual start of its next text."""

    request: int
    start: float


@dataclass(slots=True)
class Taken:
    """What `TextQueue.take` returns: a group to infer, and texts that have timed out."""

    group: list[QueuedText] = field(default_factory=list)
    expired: list[QueuedText] = field(default_factory=list)


class TextQueue:
    """Texts waiting for inference; its owner serialises all calls."""

    def __init__(
        self,
        *,
        window_s: float,
        max_group_tokens: int,
        shared_group_tokens: int,
        timeout_s: float,
        workers: int,
    ) -> None:
        self._window_s = window_s
        self._shared_group_tokens = shared_group_tokens
        self._workers = workers
        self._max_group_tokens = max_group_tokens
        self._timeout_s = timeout_s
        self._by_length: dict[int, list[tuple[float, int, QueuedText]]] = {}
        self._tokens_by_request: dict[int, int] = {}
        self._kept_by_request: dict[int, int] = {}
        self._tokens = 0
        self._virtual_time = 0.0
        self._shared_until = 0.0
        self._sequence = count()
        self._requests = count()
        self._texts = 0

    def __len__(self) -> int:
        return self._texts

    @property
    def tokens(self) -> int:
        """The tokens of all texts that wait."""
        return self._tokens

    def share(self, now: float) -> None:
        """Make small groups for a while, as if two requests were in this queue together."""
        self._shared_until = now + _SHARED_S

    def tokens_ahead(self, tokens: int) -> int:
        """Return how many queued tokens would run before a new request of this many tokens is done.

        Under fair queueing no other request gets more than the same amount in that time.
        """
        waiting = chain(self._tokens_by_request.values(), self._kept_by_request.values())
        return sum(min(of_one, tokens) for of_one in waiting)

    def begin(self, tokens: int) -> Reservation:
        """Return a reservation for a request of this many tokens; its texts may be put in parts."""
        reservation = Reservation(next(self._requests), self._virtual_time)
        self._kept_by_request[reservation.request] = tokens
        return reservation

    def end(self, reservation: Reservation) -> None:
        """Release the place of texts that a request has not put."""
        self._kept_by_request.pop(reservation.request, None)

    def put(
        self, texts: Sequence[QueuedText], now: float, reservation: Reservation | None = None
    ) -> None:
        """Queue texts at monotonic time `now`, seconds, under a reservation if there is one."""
        reservation = reservation or self.begin(0)
        for text in texts:
            text.enqueued_at, text.request = now, reservation.request
            waiting = self._by_length.setdefault(len(text.ids), [])
            heapq.heappush(waiting, (reservation.start, next(self._sequence), text))
            reservation.start += len(text.ids)
        tokens = sum(len(text.ids) for text in texts)
        kept = self._kept_by_request.pop(reservation.request, 0) - tokens
        if kept > 0:
            self._kept_by_request[reservation.request] = kept
        before = self._tokens_by_request.get(reservation.request, 0)
        if len(self._tokens_by_request) > bool(before):
            self.share(now)
        self._tokens_by_request[reservation.request] = before + tokens
        self._tokens += tokens
        self._texts += len(texts)

    def take(self, now: float) -> Taken:
        """Remove and return the next group, of one length and at most the token budget.

        The group is empty only if no wanted text waits.
        """
        taken = Taken()
        while self._by_length and not taken.group:
            length = self._next_length(now)
            waiting = self._by_length[length]
            self._virtual_time = max(self._virtual_time, self._earliest_start())
            share = -(-self._tokens // (self._workers * length))
            most_texts = max(1, min(self._most_tokens(now) // length, share))
            while waiting and len(taken.group) < most_texts:
                text = heapq.heappop(waiting)[2]
                self._forget(text)
                if text.future.cancelled():
                    continue
                if now - text.enqueued_at > self._timeout_s:
                    taken.expired.append(text)
                    continue
                taken.group.append(text)
            if not waiting:
                del self._by_length[length]
        return taken

    def _most_tokens(self, now: float) -> int:
        if now < self._shared_until:
            return min(self._max_group_tokens, self._shared_group_tokens)
        return self._max_group_tokens

    def _next_length(self, now: float) -> int:
        turn = min(self._by_length, key=lambda length: self._by_length[length][0][:2])
        if now - self._by_length[turn][0][2].enqueued_at >= self._window_s:
            return turn
        return max(self._by_length, key=lambda length: (self._group_tokens(length), length == turn))

    def _earliest_start(self) -> float:
        return min(waiting[0][0] for waiting in self._by_length.values())

    def _group_tokens(self, length: int) -> int:
        return min(length * len(self._by_length[length]), self._max_group_tokens)

    def _forget(self, text: QueuedText) -> None:
        self._texts -= 1
        self._tokens -= len(text.ids)
        left = self._tokens_by_request[text.request] - len(text.ids)
        if left:
            self._tokens_by_request[text.request] = left
        else:
            del self._tokens_by_request[text.request]
