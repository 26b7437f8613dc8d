"""The way of an items request: hot tier, exact tier, semantic tier, inference, write-back.

An items request is a batch of inputs that an engine computes one by one: texts to embed, or pairs
of a query and a document to score. Scores have no semantic tier.
Each input takes its own way, and the results keep the order of the inputs. This file decides which
tier is asked when; how a tier works is in `tiers/`. What holds here: a lookup happens only in the
caller's namespace; an input is inferred once however many requests ask for it at the same time
(`ItemInference`); work that began before a purge is never served to later requests; and a sick
cache costs time within its deadline, never the answer.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Generic, TypeVar

from cacheproxy.concurrency.job_thread import JobThread
from cacheproxy.concurrency.parts import in_parts, in_turns
from cacheproxy.errors import NotCached
from cacheproxy.fairness.meters import Meters
from cacheproxy.fairness.seats import Seats
from cacheproxy.inference.engine import Engine, Given
from cacheproxy.inference.input import Input, characters_of
from cacheproxy.keys import KeyScope, key_scope
from cacheproxy.records import Record
from cacheproxy.routes.early_refusal import EarlyRefusal
from cacheproxy.routes.exchange import Control, ItemsRequest, ItemsResult, ModelInfo, Served
from cacheproxy.routes.form import ItemForm
from cacheproxy.routes.item import Item, ItemsState, unserved
from cacheproxy.routes.item_inference import ItemInference
from cacheproxy.routes.item_lookup import ItemLookup
from cacheproxy.routes.repeated import Repeated, RepeatedLookup
from cacheproxy.stores.protocol import Partition
from cacheproxy.stores.purges import Purges
from cacheproxy.telemetry.lookup_counts import LookupCounts
from cacheproxy.telemetry.metrics import Metrics
from cacheproxy.telemetry.stages import Stages
from cacheproxy.tiers.hot import HotEntry
from cacheproxy.tiers.keeping import Keeper
from cacheproxy.tiers.keyed import Found, KeyedTiers
from cacheproxy.tiers.lifetime import Lifetimes
from cacheproxy.tiers.semantic import SemanticTier
from cacheproxy.tiers.sparework import SpareWork

R = TypeVar("R", bound=Record)

_INLINE_CHARACTERS = 2_000
"""Texts of up to this many characters in all are tokenised on the event loop: about half a
millisecond of work, of which a hop to another thread would cost a tenth."""


class ItemsRoute(Generic[R]):
    """The way of the requests for one model.

    Attributes:
        model: its names and fingerprint.
        repeated: looks up what byte-equal repeats of earlier requests ask for.
    """

    def __init__(
        self,
        model: ModelInfo,
        form: ItemForm[R],
        *,
        tiers: KeyedTiers[R],
        semantic: SemanticTier[R] | None,
        engine: Engine,
        keeper: Keeper[R],
        purges: Purges,
        spare_work: SpareWork,
        tokenizing: JobThread,
        lifetimes: Lifetimes,
        metrics: Metrics,
        meters: Meters | None = None,
        seats: Seats | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Prepare; `meters` count the tokens of tenants, `now` returns Unix time, seconds."""
        self._meters = meters or Meters({})
        self._seats = seats or nullcontext()
        self.model = model
        self._form = form
        self._tiers = tiers
        self._hot = tiers.hot
        self._engine = engine
        self._tokenizing = tokenizing
        self._now = now
        self._counts = LookupCounts(metrics, model.name)
        self._early_refusal = EarlyRefusal()
        self._truncated = metrics.truncated_texts.labels(model.name)
        self._stages = Stages(metrics, ("tokenize", "exact", "probe", "semantic", "inference"))
        self.repeated = RepeatedLookup(tiers, self._stages, lambda _: self._counts)
        self._inference = ItemInference(
            form,
            engine,
            model.fingerprint,
            tiers=tiers,
            keeper=keeper,
            purges=purges,
            semantic=semantic,
            lifetimes=lifetimes,
            counts=self._counts,
            now=now,
        )
        self._lookup = ItemLookup(
            semantic,
            engine,
            spare_work=spare_work,
            check=self._inference.check,
            is_fresh=self._is_fresh,
            counts=self._counts,
            stages=self._stages,
        )

    async def serve(
        self, request: ItemsRequest, repeated: Repeated[R] | None = None
    ) -> ItemsResult[R]:
        """Return the result of every input; a key that `repeated` did not find is not asked again.

        Raises:
            BadRequest: a token id is outside the vocabulary.
            NotCached: only cached results were allowed, and one is missing.
            Overloaded, Unavailable, InferenceFailed: inference could not answer.
        """
        items: list[Item[R]] = [Item(given) for given in request.inputs]
        state = ItemsState(request, self._scope_of(request.namespace.id), repeated)
        await in_parts(items, partial(self._from_hot_by_text, state))
        if waiting := unserved(items):
            async with self._seats:
                try:
                    await self._serve_others(items, waiting, state)
                finally:
                    state.over.set()
                    if state.reservation is not None:
                        self._engine.end(state.reservation)
        else:
            self._count("hot", items, waiting, state)
        return ItemsResult([item.served for item in items if item.served], state.stages_s)

    async def _serve_others(
        self, items: list[Item[R]], waiting: list[Item[R]], state: ItemsState[R]
    ) -> None:
        """Serve those that wait because the hot tier does not know their raw texts."""
        inputs = [item.input for item in waiting]
        state.reservation = self._early_refusal.reserve(self._engine, inputs, state.control)
        await self._tokenize(waiting, state)
        await in_parts(waiting, partial(self._from_hot, state))
        waiting = unserved(waiting)
        self._count("hot", items, waiting, state)
        if waiting:
            waiting = await self._from_exact(waiting, state)
        if waiting:
            self._reserve(waiting, state)
            waiting = await self._lookup.serve(waiting, state)
        if waiting:
            await self._from_inference(waiting, state)

    def key_of(self, namespace_id: str, given: Input) -> bytes:
        """Return the key [32 bytes] of an input's entry in a namespace."""
        (ids,) = self._engine.encode([given])
        return self._engine.key_of(self._scope_of(namespace_id), Given(given, ids))

    def partition_of(self, namespace_id: str) -> Partition:
        """Return where the entries of a namespace are."""
        return self._inference.partition_of(namespace_id)

    def _scope_of(self, namespace_id: str) -> KeyScope:
        return key_scope(namespace_id, self._form.route, self.model.fingerprint)

    def _from_hot_by_text(self, state: ItemsState[R], items: Sequence[Item[R]]) -> None:
        for item in items:
            if state.control.reads and not isinstance(item.input, list):
                item.raw_key = state.scope.of_raw(item.input)
                if (entry := self._hot.get_by_text(item.raw_key)) is not None:
                    self._serve_hot(item, entry, state)

    async def _tokenize(self, items: list[Item[R]], state: ItemsState[R]) -> None:
        given = [item.input for item in items]
        with self._stages.time("tokenize", state.stages_s):
            if sum(map(characters_of, given)) <= _INLINE_CHARACTERS:
                encoded = self._engine.encode(given)
            else:
                encoded = await self._tokenizing.run(partial(self._engine.encode, given))
        for item, ids in zip(items, encoded, strict=True):
            item.ids = ids

    def _from_hot(self, state: ItemsState[R], items: Sequence[Item[R]]) -> None:
        for item in items:
            item.given = Given(item.input, item.ids)
            item.key = self._engine.key_of(state.scope, item.given)
            if self._engine.is_cut(item.ids):
                self._truncated.inc()
            if state.control.reads and (entry := self._hot.get(item.key)) is not None:
                self._serve_hot(item, entry, state)

    async def _from_exact(self, items: list[Item[R]], state: ItemsState[R]) -> list[Item[R]]:
        if not state.control.reads:
            return items
        keys = [item.key for item in items]
        if state.repeated is not None and keys == [state.repeated.key]:
            state.stages_s |= state.repeated.stages_s
        else:
            with self._stages.time("exact", state.stages_s):
                all_found = await self._tiers.from_exact(state.namespace_id, keys)
            async for item, found in in_turns(zip(items, all_found, strict=True)):
                self._serve_exact(item, found, state)
        missed = unserved(items)
        self._count("exact", items, missed, state)
        self._early_refusal.note(1 - len(missed) / len(items))
        return missed

    def _reserve(self, items: list[Item[R]], state: ItemsState[R]) -> None:
        """Take a place in the queue before any probe is paid for; raises `Overloaded`."""
        if state.control.only_if_cached:
            return
        tokens = 0
        for item in items:
            if not self._inference.in_flight(item, state):
                tokens += len(item.ids)
        meter = self._meters.of(state.namespace_id)
        if meter is not None:
            meter.infer(time.monotonic(), tokens)
        if state.reservation is None:
            state.reservation = self._engine.begin(tokens)

    async def _from_inference(self, items: list[Item[R]], state: ItemsState[R]) -> None:
        if state.control.only_if_cached:
            raise NotCached(f"{len(items)} inputs are not cached, and only cached ones are allowed")
        with self._stages.time("inference", state.stages_s):
            await self._inference.infer(items, state, self._serve_late)
        self._lookup.inferred(items, state)

    def _serve_late(self, item: Item[R], state: ItemsState[R]) -> None:
        """Serve what another request has finished since this item was looked up."""
        if not state.control.reads:
            return
        if (entry := self._hot.get(item.key)) is not None:
            self._serve_hot(item, entry, state)
        if item.served is None:
            found = self._tiers.from_writeback(state.namespace_id, item.key)
            self._serve_exact(item, found, state)
        if item.served is not None:
            self._counts.count(item.served.outcome, hits=1)

    def _serve_hot(self, item: Item[R], entry: HotEntry[R], state: ItemsState[R]) -> None:
        if self._is_fresh(entry.record, state.control):
            self._inference.link(item)
            item.served = Served(entry.record, "hot", entry)

    def _serve_exact(self, item: Item[R], found: Found[R] | None, state: ItemsState[R]) -> None:
        if found is not None and self._is_fresh(found.record, state.control):
            self._inference.link(item)
            item.served = Served(found.record, "exact", found.hot_entry)

    def _is_fresh(self, record: R, control: Control) -> bool:
        return control.max_age_s is None or self._now() - record.created_at <= control.max_age_s

    def _count(
        self, tier: str, asked: list[Item[R]], missed: list[Item[R]], state: ItemsState[R]
    ) -> None:
        if state.control.reads:
            misses = len(missed)
            self._counts.count(tier, hits=len(asked) - misses, misses=misses)
