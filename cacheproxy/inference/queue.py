"""Which texts are inferred next: groups of one length, fair between requests. No I/O, no clock.

Texts are grouped by exact length, so nothing is padded and no mask is needed. The order is
start-time fair queueing (Goyal, Vin and Cheng, 1996) on two levels. Between the requests of one
owner, a text's virtual start is the number of tokens that its request queued before it, counted
from the request's arrival, so that a request of one text is never stuck behind one of 2,048.
Virtual time is the start of the text that is next in order, not that of the other texts in its
group, whose later starts would put new requests behind them. Between owners, each has had a number
of tokens, divided by its share, and the one that has had the least is next; one that was away does
not catch up. So an owner waits for about one group of the others' texts, however many those have
queued. What is left of a group is filled with other owners' texts of the same length.

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
from itertools import count

import numpy as np
from numpy.typing import NDArray

from cacheproxy.fairness.shelves import TermsOf, equal

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
        owner: whose request that is.
    """

    ids: Ids
    future: asyncio.Future[Vector]
    enqueued_at: float = 0.0
    request: int = 0
    owner: str = ""


@dataclass(slots=True)
class Reservation:
    """One request's place in the queue: its number, its next text's virtual start, its owner."""

    request: int
    start: float
    owner: str = ""


@dataclass(slots=True)
class Taken:
    """What `TextQueue.take` returns: a group to infer, and texts that have timed out.

    Attributes:
        group, expired: as said.
        is_alone: whether no other group ran or waited when this one was taken.
    """

    group: list[QueuedText] = field(default_factory=list)
    expired: list[QueuedText] = field(default_factory=list)
    is_alone: bool = False


class _Owner:
    """One owner's texts, in heaps by length.

    Attributes:
        had: tokens that were taken, divided by the owner's share; what it missed while it had
            nothing to do is not counted as owed.
        tokens: of all its texts.
        waiting, kept: tokens by request, of texts and of reservations.
    """

    __slots__ = ("_by_length", "_virtual_time", "had", "kept", "share", "tokens", "waiting")

    def __init__(self, share: float) -> None:
        self.share = share
        self.had = 0.0
        self.tokens = 0
        self.waiting: dict[int, int] = {}
        self.kept: dict[int, int] = {}
        self._by_length: dict[int, list[tuple[float, int, QueuedText]]] = {}
        self._virtual_time = 0.0

    @property
    def virtual_time(self) -> float:
        """The virtual start of a request that begins now."""
        return self._virtual_time

    @property
    def all_tokens(self) -> int:
        """The tokens of all its texts and reservations."""
        return sum(self.waiting.values()) + sum(self.kept.values())

    def push(self, text: QueuedText, start: float, number: int) -> None:
        """Add a text with its virtual start; `number` rises with each text."""
        waiting = self._by_length.setdefault(len(text.ids), [])
        heapq.heappush(waiting, (start, number, text))
        self.tokens += len(text.ids)

    def pop(self, length: int) -> QueuedText | None:
        """Remove and return the next text of a length, if there is one."""
        waiting = self._by_length.get(length)
        if waiting is None:
            return None
        text = heapq.heappop(waiting)[2]
        if not waiting:
            del self._by_length[length]
        self.tokens -= length
        left = self.waiting[text.request] - length
        if left:
            self.waiting[text.request] = left
        else:
            del self.waiting[text.request]
        return text

    def next_length(self, now: float, window_s: float, most_tokens: int) -> int:
        """Return the length of the next group, which brings virtual time forward."""
        earliest = min(waiting[0][0] for waiting in self._by_length.values())
        self._virtual_time = max(self._virtual_time, earliest)
        turn = min(self._by_length, key=lambda length: self._by_length[length][0][:2])
        if now - self._by_length[turn][0][2].enqueued_at >= window_s:
            return turn

        def fullness(length: int) -> tuple[int, bool]:
            return min(length * len(self._by_length[length]), most_tokens), length == turn

        return max(self._by_length, key=fullness)


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
        terms: TermsOf = equal,
    ) -> None:
        self._window_s = window_s
        self._shared_group_tokens = shared_group_tokens
        self._workers = workers
        self._max_group_tokens = max_group_tokens
        self._timeout_s = timeout_s
        self._terms = terms
        self._owners: dict[str, _Owner] = {}  # as many as there are tenants
        self._busy: dict[str, _Owner] = {}  # those with texts or reservations
        self._tokens = 0
        self._requests_waiting = 0
        self._had = 0.0
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

    def is_waiting(self, owner: str) -> bool:
        """Return whether any text of an owner waits."""
        busy = self._busy.get(owner)
        return busy is not None and bool(busy.waiting)

    def tokens_ahead(self, tokens: int, owner: str = "") -> int:
        """Return how many queued tokens would run before a new request of this many tokens is done.

        Under fair queueing no other request of its owner gets more than the same amount in that
        time, and no other owner more than its owner in proportion to their shares.
        """
        own = self._busy.get(owner)
        ahead = 0
        if own is not None:
            for by_request in (own.waiting, own.kept):
                # Without a generator and `min`: each request looks at all that wait.
                ahead += sum([one if one < tokens else tokens for one in by_request.values()])
        if len(self._busy) == (own is not None):
            return ahead
        share = self._terms(owner).share if own is None else own.share
        per_share = (ahead + tokens) / share
        return ahead + sum(
            min(other.all_tokens, int(per_share * other.share))
            for other in self._busy.values()
            if other is not own
        )

    def begin(self, tokens: int, owner: str = "") -> Reservation:
        """Return a reservation for a request of this many tokens; its texts may be put in parts."""
        of_owner = self._busy_one(owner)
        reservation = Reservation(next(self._requests), of_owner.virtual_time, owner)
        of_owner.kept[reservation.request] = tokens
        return reservation

    def end(self, reservation: Reservation) -> None:
        """Release the place of texts that a request has not put."""
        owner = self._owners[reservation.owner]
        owner.kept.pop(reservation.request, None)
        self._rest(reservation.owner, owner)

    def put(
        self, texts: Sequence[QueuedText], now: float, reservation: Reservation | None = None
    ) -> None:
        """Queue texts at monotonic time `now`, seconds, under a reservation if there is one."""
        reservation = reservation or self.begin(0)
        owner, request = self._busy_one(reservation.owner), reservation.request
        if not owner.waiting:
            owner.had = max(owner.had, self._had)
        tokens = 0
        for text in texts:
            text.enqueued_at, text.request = now, request
            text.owner = reservation.owner
            owner.push(text, reservation.start, next(self._sequence))
            reservation.start += len(text.ids)
            tokens += len(text.ids)
        kept = owner.kept.pop(request, 0) - tokens
        if kept > 0:
            owner.kept[request] = kept
        before = owner.waiting.get(request, 0)
        if self._requests_waiting > bool(before):
            self.share(now)
        if texts:
            owner.waiting[request] = before + tokens
            self._requests_waiting += not before
        self._tokens += tokens
        self._texts += len(texts)

    def take(self, now: float) -> Taken:
        """Remove and return the next group, of one length and at most the token budget.

        The group is empty only if no wanted text waits.
        """
        taken = Taken()
        while self._texts and not taken.group:
            waiting = [one for one in self._busy.items() if one[1].waiting]
            waiting.sort(key=lambda one: one[1].had)
            first = waiting[0][1]
            self._had = first.had
            length = first.next_length(now, self._window_s, self._max_group_tokens)
            share = -(-self._tokens // (self._workers * length))
            most_texts = max(1, min(self._most_tokens(now) // length, share))
            for name, owner in waiting:
                self._take_from(owner, length, most_texts, now, taken)
                self._rest(name, owner)
        return taken

    def _take_from(
        self, owner: _Owner, length: int, most_texts: int, now: float, taken: Taken
    ) -> None:
        while len(taken.group) < most_texts and (text := owner.pop(length)) is not None:
            self._texts -= 1
            self._tokens -= length
            self._requests_waiting -= text.request not in owner.waiting
            if text.future.cancelled():
                continue
            if now - text.enqueued_at > self._timeout_s:
                taken.expired.append(text)
                continue
            taken.group.append(text)
            owner.had += length / owner.share

    def _busy_one(self, name: str) -> _Owner:
        owner = self._busy.get(name)
        if owner is None:
            owner = self._owners.get(name)
            if owner is None:
                owner = self._owners[name] = _Owner(self._terms(name).share)
            self._busy[name] = owner
        return owner

    def _rest(self, name: str, owner: _Owner) -> None:
        """Look past an owner that has neither texts nor reservations."""
        if not owner.waiting and not owner.kept:
            self._busy.pop(name, None)

    def _most_tokens(self, now: float) -> int:
        if now < self._shared_until:
            return min(self._max_group_tokens, self._shared_group_tokens)
        return self._max_group_tokens
