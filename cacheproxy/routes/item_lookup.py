"""The semantic step of an items request: neighbours of what the exact tiers do not have.

Inference waits for it only where a neighbour may be served. While the tier is closed, neighbours
are wanted for the evidence alone, so that no request waits for them: a few texts are looked up once
they are answered, as a lone one is inferred on all cores and would share these, and many beside
inference, so that their entries are written before the last of them is inferred.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Generic, TypeVar

from cacheproxy.inference.engine import Engine
from cacheproxy.records import Record
from cacheproxy.routes.exchange import Control, Served
from cacheproxy.routes.item import Item, ItemsState, unserved
from cacheproxy.telemetry.lookup_counts import LookupCounts
from cacheproxy.telemetry.stages import Stages
from cacheproxy.tiers.semantic import Lookup, SemanticTier
from cacheproxy.tiers.sparework import Begin, SpareWork

R = TypeVar("R", bound=Record)

_FEW, _BEHIND_S = 8, 0.002
"""So many texts of a request are looked up behind its answer, and so long behind it, so that its
client's process has a core to read it. One at a time, on busy cores, a new text took 5.8 ms when it
was looked up beside inference, 4.7 ms right behind it, and takes 3.7 (4.2 without any lookup)."""


class ItemLookup(Generic[R]):
    """Lookups by probe for one route and model."""

    def __init__(
        self,
        semantic: SemanticTier[R] | None,
        engine: Engine,
        *,
        spare_work: SpareWork,
        check: Callable[[Item[R], ItemsState[R]], Begin],
        is_fresh: Callable[[R, Control], bool],
        counts: LookupCounts,
        stages: Stages,
    ) -> None:
        """Prepare; `check` returns the background work that checks a hit."""
        self._semantic = semantic
        self._engine = engine
        self._spare_work = spare_work
        self._check = check
        self._is_fresh = is_fresh
        self._counts = counts
        self._stages = stages
        self._unawaited: set[asyncio.Task[None]] = set()

    async def serve(self, items: list[Item[R]], state: ItemsState[R]) -> list[Item[R]]:
        """Serve what may be served; return the items that inference has to serve."""
        semantic, control, namespace_id = self._semantic, state.control, state.namespace_id
        if semantic is None or not control.keeps:
            return items
        is_idle = self._spare_work.may_begin
        if not semantic.is_active(namespace_id, len(items), is_idle=is_idle):
            return items
        if semantic.may_hit(namespace_id) or control.only_if_cached:
            await self._look_up(semantic, items, state)
            for item in items:
                self._serve_one(item, state)
            waiting = unserved(items)
            self._looked_up(semantic, items, waiting, state)
            return waiting
        looking = asyncio.create_task(self._look_unawaited(semantic, items, state))
        self._unawaited.add(looking)
        looking.add_done_callback(self._unawaited.discard)
        for item in items:
            item.looking = looking
        return items

    def inferred(self, items: Sequence[Item[R]], state: ItemsState[R]) -> None:
        """Take note of what hits would have saved."""
        if self._semantic is not None:
            self._semantic.inferred(state.namespace_id, state.stages_s["inference"], len(items))

    async def _look_unawaited(
        self, semantic: SemanticTier[R], items: list[Item[R]], state: ItemsState[R]
    ) -> None:
        if len(items) <= _FEW:
            await state.over.wait()
            await asyncio.sleep(_BEHIND_S)
        # The client does not wait for these stages, so they are none of its `Server-Timing`.
        state = replace(state, stages_s=dict(state.stages_s))
        await self._look_up(semantic, items, state)
        for item in items:
            # The tier may have opened meanwhile; the item is inferred nevertheless.
            item.lookup = item.lookup._replace(is_hit=False, check=False)
        self._looked_up(semantic, items, items, state)

    async def _look_up(
        self, semantic: SemanticTier[R], items: list[Item[R]], state: ItemsState[R]
    ) -> None:
        """Set each item's lookup."""
        control, stages_s = state.control, state.stages_s
        with self._stages.time("probe", stages_s):
            # A probe that does not see the whole text would find other texts with the same start.
            ids = [item.ids if self._engine.probe_sees_all(item.ids) else () for item in items]
            probes = await semantic.probe(ids)
        if not (control.reads and control.semantic):
            for item, probe in zip(items, probes, strict=True):
                item.lookup = Lookup(probe)  # so that its entry can be indexed
            return
        with self._stages.time("semantic", stages_s):
            lookups = await semantic.find(
                semantic.partition_of(state.namespace_id),
                probes,
                [item.key for item in items],
                min_similarity=control.min_similarity,
                can_check=not self._spare_work.is_full,
                spent_s=stages_s.get("exact", 0.0),
            )
        for item, lookup in zip(items, lookups, strict=True):
            item.lookup = lookup

    def _serve_one(self, item: Item[R], state: ItemsState[R]) -> None:
        lookup, record = item.lookup, item.lookup.neighbour
        if lookup.is_hit and record is not None and self._is_fresh(record, state.control):
            item.served = Served(record, "semantic", score=lookup.score)
            if lookup.check:
                self._spare_work.put(self._check(item, state))

    def _looked_up(
        self,
        semantic: SemanticTier[R],
        items: Sequence[Item[R]],
        missed: Sequence[Item[R]],
        state: ItemsState[R],
    ) -> None:
        """Count what was looked up, and what it took."""
        stages_s = state.stages_s
        if "semantic" not in stages_s:
            return
        hits = len(items) - len(missed)
        self._counts.count("semantic", hits=hits, misses=len(missed))
        seconds = stages_s["probe"] + stages_s["semantic"]
        semantic.looked_up(state.namespace_id, seconds, len(items), hits)
