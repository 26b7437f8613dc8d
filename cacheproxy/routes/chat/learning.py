"""What becomes of a complete answer: an entry of the tiers, then evidence for the semantic tier.

`keep` writes the entry back at once. Behind the answer, when inference has time, its neighbour is
looked for (unless the request has looked already) and the entry is written again under its probe,
so that later questions find it. Then the pair may become a label (`evidence`). A served hit may
become one, too: if the judge rejects it, or a client reports it, the entry is removed everywhere
and quarantined, so that no other question finds it again.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from cacheproxy.concurrency.background import BackgroundTasks
from cacheproxy.errors import BadRequest, StoreError, Unavailable
from cacheproxy.keys import Namespace
from cacheproxy.routes.chat.models import ChatModels, ModelLikeness
from cacheproxy.routes.chat.record import CompletionRecord
from cacheproxy.routes.chat.staleness import StalenessRules
from cacheproxy.routes.chat.state import CompletionState
from cacheproxy.routes.dialects.completion import Completion
from cacheproxy.routes.dialects.context import in_context
from cacheproxy.routes.judging.fresh import Asked
from cacheproxy.stores.protocol import Entry, Partition
from cacheproxy.stores.purges import Scope
from cacheproxy.telemetry.metrics import Metrics
from cacheproxy.thresholds.judged.thresholds import Pick
from cacheproxy.thresholds.past import FoundBy, WrongHits
from cacheproxy.tiers.flights import Flight
from cacheproxy.tiers.keeping import Keeper
from cacheproxy.tiers.keyed import KeyedTiers
from cacheproxy.tiers.lifetime import Lifetimes
from cacheproxy.tiers.sparework import SpareWork

logger = logging.getLogger(__name__)

_PICKS = 4_096
"""Semantic hits that a client's report can be a label of."""

_QUESTION = 16_000
"""Characters of a question that are kept; the semantic tier reads shorter ones only."""


class Learning:
    """Keeps complete answers, learns from them, and removes what was found to be wrong."""

    def __init__(
        self,
        models: ChatModels,
        keeper: Keeper[CompletionRecord],
        *,
        tiers: KeyedTiers[CompletionRecord],
        lifetimes: Lifetimes,
        staleness: StalenessRules,
        spare_work: SpareWork,
        purge: Callable[[Scope], Awaitable[int]],
        metrics: Metrics,
        wrong_hits: WrongHits | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Prepare.

        Args:
            models: what is known of models.
            keeper: writes answers back.
            tiers: the hot and the exact tier.
            lifetimes, staleness: of completions.
            spare_work: runs what nobody waits for.
            purge: removes entries from the store.
            metrics: counts.
            wrong_hits: shows operators the hits that were wrong.
            now: Unix time, seconds.
        """
        self._models = models
        self._keeper = keeper
        self._tiers = tiers
        self._lifetimes = lifetimes
        self._staleness = staleness
        self._spare_work = spare_work
        self._purge = purge
        self._reports = metrics.cache_reports
        self._wrong_hits = wrong_hits or WrongHits()
        self._now = now
        self._removals = BackgroundTasks()
        self._picks: OrderedDict[bytes, Pick] = OrderedDict()

    def keep(
        self, completion: Completion, took_s: float, flight: Flight, state: CompletionState
    ) -> None:
        """Write a complete answer back, and queue what is to be learned from it."""
        likeness = self._models.answered(state.request.model)
        record = self._record_of(completion, took_s, state)
        user_turn, near = state.user_turn, state.near
        if likeness is None or user_turn is None:
            # Without the hash of the caller's authorization, which no other store could know.
            partition = Partition(state.namespace_id, state.scope.partition("#")[0])
        else:
            partition = likeness.tier.partition_of(state.namespace_id, user_turn)
        probe = None if near is None else near.probe
        if likeness is not None and likeness.tier.is_quarantined(record.key):
            probe = None
        tags = state.control.tags
        entry = self._keeper.keep(record, flight, partition=partition, probe=probe, tags=tags)
        if likeness is None or user_turn is None:
            return
        if likeness.evidence is not None:
            likeness.evidence.earn(state.namespace_id, likeness.cost_of(completion, record))
        if not self._spare_work.is_full:
            since = flight.since  # not the flight, whose parts and task would wait with it
            self._spare_work.put(
                lambda: asyncio.ensure_future(self._learn(likeness, record, entry, since, state))
            )

    def served(self, state: CompletionState, likeness: ModelLikeness) -> None:
        """Learn from a semantic hit, behind its answer."""
        near, turn = state.near, state.user_turn
        if near is None or near.neighbour is None or turn is None or likeness.evidence is None:
            return
        neighbour, pick = near.neighbour, near.pick
        if pick is None:
            return
        self._remember(neighbour.key, pick)
        likeness.evidence.served(state.namespace_id, neighbour.took_s)
        likeness.evidence.hit(
            state.namespace_id,
            _asked(state),
            neighbour.text,
            pick,
            lambda: self._removals.start(self._remove_wrong(neighbour, near.score)),
        )

    async def report(self, namespace: Namespace, key: bytes, score: float | None) -> int:
        """Remove an entry that a client called wrong; return how many entries that were.

        `score` is the neighbour's if it was a semantic hit: then the report is a label.

        Raises:
            BadRequest: the namespace has no such entry (404).
            Unavailable: the entry could not be removed.
        """
        entry = self._tiers.hot.get(key)
        record = entry.record if entry is not None else None
        if record is None or record.namespace_id != namespace.id:
            (found,) = await self._tiers.from_exact(namespace.id, [key])
            record = found.record if found is not None else None
        if record is None:
            raise BadRequest("there is no such entry", status=404, param="id", code="not_found")
        try:
            removed = await self.remove(record)
        except StoreError as error:
            raise Unavailable(f"the entry could not be removed: {error}") from error
        self._reports.labels(self._models.label_of(record.model)).inc()
        self._note(record, score, "report")
        likeness, pick = self._models.answered(record.model), self._picks.get(key)
        if likeness is not None and likeness.evidence is not None and pick and score is not None:
            likeness.evidence.reported(namespace.id, pick)
        # The store may not have had it yet, and does not get it any more.
        return max(removed, 1)

    async def remove(self, record: CompletionRecord) -> int:
        """Remove an entry everywhere and quarantine its key; return how many entries that were.

        Raises:
            StoreError: the entry may still be found.
        """
        likeness = self._models.likeness_of(record.model)
        if likeness is not None:
            likeness.tier.quarantine(record.key)
        return await self._purge(Scope(record.namespace_id, key=record.key))

    async def stop(self) -> None:
        """Give up the judgements and removals that are under way; they are no labels."""
        for likeness in self._models.likenesses():
            if likeness.evidence is not None:
                await likeness.evidence.stop()
        await self._removals.stop()

    async def _learn(
        self,
        likeness: ModelLikeness,
        record: CompletionRecord,
        entry: Entry,
        since: int,
        state: CompletionState,
    ) -> None:
        """Index an answer's entry under its question, and learn from its neighbour."""
        near, turn = state.near, state.user_turn
        if turn is None:
            return
        if near is None:
            near = await likeness.tier.find(record.namespace_id, turn, record.key)
            if near.probe is not None and self._may_be_found(likeness, record):
                self._keeper.index(entry, near.probe, since)
        if likeness.evidence is not None and near.probe is not None:
            asked = _asked(state)
            await likeness.evidence.missed(record.namespace_id, asked, record.text, near)

    async def _remove_wrong(self, record: CompletionRecord, score: float) -> None:
        self._note(record, score, "judge")
        try:
            await self.remove(record)
        except StoreError as error:
            logger.warning("a wrong entry could not be removed: %s", error)

    def _note(self, record: CompletionRecord, score: float | None, found_by: FoundBy) -> None:
        self._wrong_hits.add(
            *(self._models.label_of(record.model), record.namespace_id, record.key),
            score=score,
            found_by=found_by,
            at=self._now(),
        )

    def _remember(self, key: bytes, pick: Pick) -> None:
        self._picks[key] = pick
        self._picks.move_to_end(key)
        if len(self._picks) > _PICKS:
            self._picks.popitem(last=False)

    def _may_be_found(self, likeness: ModelLikeness, record: CompletionRecord) -> bool:
        """Return whether other questions may find an entry, and it was not replaced meanwhile."""
        entry = self._tiers.hot.get(record.key)
        is_current = entry is None or entry.record is record
        return is_current and not likeness.tier.is_quarantined(record.key)

    def _record_of(
        self, completion: Completion, took_s: float, state: CompletionState
    ) -> CompletionRecord:
        created_at = self._now()
        ttl_s = self._lifetimes.choose(state.namespace_id, state.control.ttl_s)
        return CompletionRecord(
            namespace_id=state.namespace_id,
            key=state.key,
            created_at=created_at,
            fresh_until=created_at + ttl_s,
            expires_at=created_at + ttl_s + self._staleness.of(state.namespace_id).grace_s,
            took_s=took_s,
            prompt_tokens=completion.prompt_tokens,
            completion_tokens=completion.completion_tokens,
            has_usage=completion.has_usage,
            model=state.request.model,
            body=completion.body,
            question="" if state.user_turn is None else state.user_turn.question[:_QUESTION],
        )


def _asked(state: CompletionState) -> Asked:
    return Asked(in_context(state.request), state.request, state.client)
