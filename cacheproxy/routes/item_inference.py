"""The last step of an items request: coalesced inference, write-back, and what it teaches.

An item joins the flight of its key if there is one, else it begins one. When a flight is done, its
result goes into the tiers, even if all who asked have left; then it is compared with the neighbour
that the semantic tier found, which is a free label.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from cacheproxy.concurrency.parts import in_parts
from cacheproxy.errors import ApiError
from cacheproxy.inference.engine import Engine, Inferred
from cacheproxy.records import Record
from cacheproxy.routes.exchange import Served
from cacheproxy.routes.form import EntryOf, ItemForm
from cacheproxy.routes.item import Item, ItemsState, unserved
from cacheproxy.stores.protocol import Partition
from cacheproxy.stores.purges import Purges
from cacheproxy.telemetry.lookup_counts import LookupCounts
from cacheproxy.tiers.flights import (
    Flights,
    FutureFlight,
    release_all,
    wait_for_all,
)
from cacheproxy.tiers.keeping import Keeper
from cacheproxy.tiers.keyed import KeyedTiers
from cacheproxy.tiers.lifetime import Lifetimes
from cacheproxy.tiers.semantic import SemanticTier
from cacheproxy.tiers.sparework import Begin

R = TypeVar("R", bound=Record)

ServeLate = Callable[[Item[R], ItemsState[R]], None]
"""Serves an item from the tiers if another request has finished it meanwhile."""


class _Joined(Generic[R]):
    """The flights that one request waits for, by key, and the items that began one."""

    __slots__ = ("began", "flights")

    def __init__(self) -> None:
        self.flights: dict[bytes, FutureFlight[Any]] = {}
        self.began: dict[bytes, Item[R]] = {}


class ItemInference(Generic[R]):
    """Inference for one route and model."""

    def __init__(
        self,
        form: ItemForm[R],
        engine: Engine,
        fingerprint: str,
        *,
        tiers: KeyedTiers[R],
        keeper: Keeper[R],
        purges: Purges,
        semantic: SemanticTier[R] | None,
        lifetimes: Lifetimes,
        counts: LookupCounts,
        now: Callable[[], float],
    ) -> None:
        self._form = form
        self._engine = engine
        self._fingerprint = fingerprint
        self._hot = tiers.hot
        self._keeper = keeper
        self._purges = purges
        self._semantic = semantic
        self._lifetimes = lifetimes
        self._counts = counts
        self._now = now
        self._flights = Flights[FutureFlight[Any]](purges)

    async def infer(
        self, items: list[Item[R]], state: ItemsState[R], serve_late: ServeLate[R]
    ) -> None:
        """Serve every item, from a flight or by `serve_late`.

        Raises:
            Overloaded, Unavailable, InferenceFailed: inference could not answer.
        """
        joined: _Joined[R] = _Joined()
        try:
            await in_parts(items, lambda part: self._join_or_begin(part, joined, state, serve_late))
            await wait_for_all(list(joined.flights.values()))
        finally:
            release_all(joined.flights.values())
        await in_parts(unserved(items), lambda part: self._serve(part, joined, state))

    def in_flight(self, item: Item[R], state: ItemsState[R]) -> bool:
        """Return whether the item could join a flight."""
        return self._flights.get(state.namespace_id, item.key) is not None

    def check(self, item: Item[R], state: ItemsState[R]) -> Begin:
        """Return work that infers what a semantic hit saved: the result is a label and an entry.

        What was asked for before a purge makes no entry after it.
        """
        since = self._purges.moment

        def begin() -> asyncio.Future[Any] | None:
            if self._hot.get(item.key) or self.in_flight(item, state):
                return None  # compared already, or about to be
            if not self._purges.is_untouched(state.namespace_id, item.key, since):
                return None
            try:
                (future,) = self._engine.submit([item.given])
            except ApiError:
                return None  # refused: the server is stopping
            flight = self._begin(item, future, state)
            # Its own waiter: a request that joins and leaves must not cancel the check.
            flight.hold()
            future.add_done_callback(lambda _: flight.release())
            return future

        return begin

    def link(self, item: Item[R]) -> None:
        """Let the item's raw text lead to its entry in the hot tier."""
        if item.raw_key is not None and item.key:
            self._hot.link_text(item.raw_key, item.key)

    def _join_or_begin(
        self,
        items: Sequence[Item[R]],
        joined: _Joined[R],
        state: ItemsState[R],
        serve_late: ServeLate[R],
    ) -> None:
        started: list[Item[R]] = []
        for item in items:
            serve_late(item, state)
            if item.served or item.key in joined.began or item.key in joined.flights:
                continue
            flight = None
            if not state.control.no_store:
                flight = self._flights.get(state.namespace_id, item.key)
            if flight is None:
                joined.began[item.key] = item
                started.append(item)
            else:
                flight.hold()
                joined.flights[item.key] = flight
        if started:
            givens = [item.given for item in started]
            futures = self._engine.submit(givens, state.reservation)
            for item, future in zip(started, futures, strict=True):
                joined.flights[item.key] = flight = self._begin(item, future, state)
                flight.hold()

    def _serve(self, items: Sequence[Item[R]], joined: _Joined[R], state: ItemsState[R]) -> None:
        for item in items:
            self._serve_one(item, joined, state)

    def _serve_one(self, item: Item[R], joined: _Joined[R], state: ItemsState[R]) -> None:
        flight = joined.flights[item.key]
        result = flight.future.result()
        follows = joined.began.get(item.key) is not item
        if follows:
            self._counts.joined()
        entry = None if state.control.no_store else self._hot.get(item.key)
        record: Any = entry.record if entry else flight.record
        if record is None:
            record = self._record_of(item, self._engine.read(result, item.given), state)
        if entry is not None:
            self.link(item)
        item.served = Served(record, "miss", entry, collapsed=follows, is_stored=flight.is_stored)

    def _begin(
        self, item: Item[R], future: asyncio.Future[Any], state: ItemsState[R]
    ) -> FutureFlight[Any]:
        flight = FutureFlight(future, self._purges)
        if not state.control.keeps:
            return flight
        self._flights.add(flight, item.key)

        def done(_: asyncio.Future[Any]) -> None:
            self._flights.remove(flight, item.key)
            self._keep(item, flight, state)

        # Added before anybody waits, so that the tiers have the result before a waiter goes on.
        future.add_done_callback(done)
        return flight

    def _keep(self, item: Item[R], flight: FutureFlight[Any], state: ItemsState[R]) -> None:
        """Write a fresh result back, and learn from it."""
        future = flight.future
        if future.cancelled() or future.exception() is not None:
            return
        inferred = self._engine.read(future.result(), item.given)
        if not inferred.may_keep:
            return
        entry = self._keeper.keep(
            self._record_of(item, inferred, state),
            flight,
            partition=self.partition_of(state.namespace_id),
            probe=item.lookup.probe,
            tags=state.control.tags,
            waits_for=item.looking,
        )
        if item.looking is None or item.looking.done():
            self._learn(item, inferred, state)
            return

        def looked_up(_: asyncio.Task[None]) -> None:
            if item.lookup.probe is not None:
                self._keeper.index(entry, item.lookup.probe, flight.since)
            self._learn(item, inferred, state)

        item.looking.add_done_callback(looked_up)

    def _learn(self, item: Item[R], inferred: Inferred, state: ItemsState[R]) -> None:
        """Compare a fresh result with the neighbour that was found."""
        neighbour, similarity_of = item.lookup.neighbour, self._form.similarity
        if self._semantic is not None and neighbour is not None and similarity_of is not None:
            similarity = similarity_of(neighbour, inferred)
            self._semantic.learn(state.namespace_id, item.lookup, similarity)

    def partition_of(self, namespace_id: str) -> Partition:
        """Return where a namespace's entries are."""
        if self._semantic is None:
            return Partition(namespace_id, self._fingerprint)
        return self._semantic.partition_of(namespace_id)

    def _record_of(self, item: Item[R], inferred: Inferred, state: ItemsState[R]) -> R:
        created_at = self._now()
        ttl_s = self._lifetimes.choose(state.namespace_id, state.control.ttl_s)
        entry = EntryOf(state.namespace_id, item.key, created_at, created_at + ttl_s)
        return self._form.record(entry, inferred)
