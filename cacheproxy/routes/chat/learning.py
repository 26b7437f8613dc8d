"""What becomes of a complete answer: an entry of the tiers, then evidence for the semantic tier.

`keep` writes the entry back at once. Behind the answer, when inference has time, its neighbour is
looked for (unless the request has looked already) and the entry is written again under its probe,
so that later questions find it. Then the two answers are compared, which is a label. A checked hit
comes here, too, with the answer that was asked for once more. If the label says that a served
answer was wrong, its entry is removed everywhere and quarantined: no other question finds it again.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from cacheproxy.concurrency.background import BackgroundTasks
from cacheproxy.errors import ApiError, BadRequest, StoreError, Unavailable
from cacheproxy.keys import Namespace
from cacheproxy.routes.chat.budget import Budget
from cacheproxy.routes.chat.likeness import Likeness
from cacheproxy.routes.chat.models import ChatModels
from cacheproxy.routes.chat.record import CompletionRecord
from cacheproxy.routes.chat.staleness import StalenessRules
from cacheproxy.routes.chat.state import CompletionState
from cacheproxy.routes.dialects.completion import Completion
from cacheproxy.stores.protocol import Entry, Partition
from cacheproxy.stores.purges import Scope
from cacheproxy.telemetry.metrics import Metrics
from cacheproxy.tiers.flights import Flight
from cacheproxy.tiers.keeping import Keeper
from cacheproxy.tiers.keyed import KeyedTiers
from cacheproxy.tiers.lifetime import Lifetimes
from cacheproxy.tiers.semantic import Lookup
from cacheproxy.tiers.sparework import SpareWork

logger = logging.getLogger(__name__)

_JUDGED_AT_ONCE = 8
"""Pairs of answers that are before the judge at the same time."""


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
        budget: Budget,
        purge: Callable[[Scope], Awaitable[int]],
        metrics: Metrics,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare.

        Args:
            models: what is known of models.
            keeper: writes answers back.
            tiers: the hot and the exact tier.
            lifetimes, staleness: of completions.
            spare_work: runs what nobody waits for.
            budget: of the proxy's own requests.
            purge: removes entries from the store.
            metrics: counts.
            now: Unix time, seconds.
            monotonic: seconds.
        """
        self._models = models
        self._keeper = keeper
        self._tiers = tiers
        self._lifetimes = lifetimes
        self._staleness = staleness
        self._spare_work = spare_work
        self._budget = budget
        self._purge = purge
        self._reports = metrics.cache_reports
        self._now = now
        self._monotonic = monotonic
        self._judging = BackgroundTasks(_JUDGED_AT_ONCE)

    def keep(
        self, completion: Completion, took_s: float, flight: Flight, state: CompletionState
    ) -> None:
        """Write a complete answer back, and queue what is to be learned from it."""
        likeness = self._models.answered(state.request.model)
        record = self._record_of(completion, took_s, state)
        user_turn, lookup = state.user_turn, state.lookup
        if likeness is None or user_turn is None:
            partition = Partition(state.namespace_id, state.scope)
        else:
            partition = likeness.partition_of(state.namespace_id, user_turn)
        probe = None if lookup is None else lookup.probe
        if likeness is not None and likeness.is_quarantined(record.key):
            probe = None
        tags = state.control.tags
        entry = self._keeper.keep(record, flight, partition=partition, probe=probe, tags=tags)
        if likeness is None or user_turn is None or self._spare_work.is_full:
            return
        self._spare_work.put(
            lambda: asyncio.ensure_future(self._learn(likeness, record, entry, flight.since, state))
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
        likeness = self._models.answered(record.model)
        if likeness is not None and score is not None:
            likeness.reported(namespace.id, score)
        return removed

    async def remove(self, record: CompletionRecord) -> int:
        """Remove an entry everywhere and quarantine its key; return how many entries that were.

        Raises:
            StoreError: the entry may still be found.
        """
        likeness = self._models.likeness_of(record.model)
        if likeness is not None:
            likeness.quarantine(record.key)
        return await self._purge(Scope(record.namespace_id, key=record.key))

    async def stop(self) -> None:
        """Give up the comparisons that are under way; they are no labels."""
        await self._judging.stop()

    async def _learn(
        self,
        likeness: Likeness,
        record: CompletionRecord,
        entry: Entry,
        since: int,
        state: CompletionState,
    ) -> None:
        """Index an answer's entry, and compare the answer with its neighbour's."""
        likeness.answered(record.namespace_id, record.took_s)
        lookup = state.lookup
        if lookup is None and state.user_turn is not None:
            lookup = await likeness.find(
                record.namespace_id, state.user_turn, record.key, can_check=False
            )
            if lookup.probe is not None and self._may_be_found(likeness, record):
                self._keeper.index(entry, lookup.probe, since)
        if lookup is None or lookup.neighbour is None:
            return
        if lookup.neighbour.key == record.key:
            return  # an older answer to this very question, which teaches nothing about neighbours
        if not likeness.may_ask_judge(lookup):
            await self._label(likeness, lookup, lookup.neighbour, record)
        elif not self._judging.is_full and self._budget.has_any(self._monotonic()):
            # Whether there is room does not depend on the answers, so skipping does not bias.
            self._budget.take(self._monotonic())
            self._judging.start(self._label(likeness, lookup, lookup.neighbour, record))

    async def _label(
        self,
        likeness: Likeness,
        lookup: Lookup[CompletionRecord],
        neighbour: CompletionRecord,
        record: CompletionRecord,
    ) -> None:
        """Compare a fresh answer with its neighbour's; remove that one if it was served wrongly."""
        try:
            does_agree = await likeness.learn(record.namespace_id, lookup, record.body)
            if lookup.is_hit and not does_agree:
                await self.remove(neighbour)
        except ApiError:
            return  # no verdict: no reason to remove anything
        except StoreError as error:
            logger.warning("a wrong entry could not be removed: %s", error)

    def _may_be_found(self, likeness: Likeness, record: CompletionRecord) -> bool:
        """Return whether other questions may find an entry, and it was not replaced meanwhile."""
        entry = self._tiers.hot.get(record.key)
        is_current = entry is None or entry.record is record
        return is_current and not likeness.is_quarantined(record.key)

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
        )
