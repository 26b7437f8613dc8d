"""What becomes of a fresh completion: an entry of the tiers, and a label for the semantic one.

An entry is written at once, and again under its probe when that is known: while nothing may be
served by likeness, neighbours are looked for behind the answer, when inference has time. Then the
fresh answer is compared with the neighbour's. A hit that was to be checked comes here, too: its
answer is asked for once more, within a budget, and becomes an entry of its own, so that the same
question is an exact hit from then on. If the answers differ, what was served is removed, and its
key is no one's neighbour any more.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial

from cacheproxy.errors import ApiError, StoreError
from cacheproxy.routes.chat.budget import Budget
from cacheproxy.routes.chat.completion import Completion
from cacheproxy.routes.chat.flights import Flight
from cacheproxy.routes.chat.journey import Journey
from cacheproxy.routes.chat.likeness import Likeness
from cacheproxy.routes.chat.models import ChatModels
from cacheproxy.routes.chat.record import CompletionRecord, pack
from cacheproxy.routes.chat.staleness import StalenessRules
from cacheproxy.stores.protocol import Entry, Partition
from cacheproxy.stores.purges import Scope
from cacheproxy.tiers.hot import HotTier
from cacheproxy.tiers.lifetime import Lifetimes
from cacheproxy.tiers.semantic import Lookup
from cacheproxy.tiers.sparework import SpareWork
from cacheproxy.tiers.writeback import WriteBack

logger = logging.getLogger(__name__)

_JUDGING = 8
"""Pairs of answers before the judge at the same time."""


class Keeping:
    """Puts completions into the tiers, and learns from them."""

    def __init__(
        self,
        models: ChatModels,
        *,
        hot: HotTier[CompletionRecord],
        writeback: WriteBack,
        lifetimes: Lifetimes,
        staleness: StalenessRules,
        spare_work: SpareWork,
        budget: Budget,
        purge: Callable[[Scope], Awaitable[int]],
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare.

        Args:
            models: what is known of models.
            hot, writeback: the tiers.
            lifetimes, staleness: of completions.
            spare_work: does what nobody waits for.
            budget: of the requests that the proxy makes on its own account.
            purge: removes entries from the store.
            now: Unix time, seconds.
            monotonic: seconds.
        """
        self._budget = budget
        self._monotonic = monotonic
        self._judging: set[asyncio.Task[None]] = set()
        self._models = models
        self._hot = hot
        self._writeback = writeback
        self._lifetimes = lifetimes
        self._staleness = staleness
        self._spare_work = spare_work
        self._purge = purge
        self._now = now

    def keep(
        self,
        completion: Completion,
        took_s: float,
        flight: Flight,
        generation: int,
        journey: Journey,
    ) -> None:
        """Put a whole completion into the tiers."""
        likeness = self._models.answered(journey.request.model)
        record = self._record_of(completion, took_s, journey)
        self._hot.put(record, flight.since)
        flight.record = record
        turn, lookup = journey.turn, journey.lookup
        if likeness is None or turn is None:
            partition = Partition(journey.namespace_id, journey.scope)
        else:
            partition = likeness.partition_of(journey.namespace_id, turn)
        entry = Entry(
            key=journey.key,
            partition=partition,
            record=pack(record),
            expires_at=record.expires_at,
            tags=journey.control.tags,
            probe=None if lookup is None else lookup.probe,
            generation=generation,
        )
        if likeness is not None and likeness.is_quarantined(record.key):
            entry = entry._replace(probe=None)
        flight.is_stored = self._writeback.put(entry, flight.since)
        if likeness is not None and turn is not None and not self._spare_work.is_full:
            learn = partial(self._learn, likeness, record, entry, flight.since, journey)
            self._spare_work.put(lambda: asyncio.ensure_future(learn()))

    async def remove(self, record: CompletionRecord) -> int:
        """Remove an entry everywhere, and have none of its key be found by likeness again.

        Return how many there were; raises `StoreError` if it may be found again.
        """
        likeness = self._models.likeness_of(record.model)
        if likeness is not None:
            likeness.quarantine(record.key)
        return await self._purge(Scope(record.namespace_id, key=record.key))

    async def _learn(
        self,
        likeness: Likeness,
        record: CompletionRecord,
        entry: Entry,
        since: int,
        journey: Journey,
    ) -> None:
        """Make an answer one that others may find, and compare it with its neighbour's."""
        likeness.answered(record.namespace_id, record.took_s)
        lookup = journey.lookup
        try:
            if lookup is None and journey.turn is not None:
                lookup = await likeness.find(
                    record.namespace_id, journey.turn, record.key, can_check=False
                )
                if lookup.probe is not None and self._is_to_be_found(likeness, record):
                    self._writeback.put(entry._replace(probe=lookup.probe), since)
            if lookup is None or lookup.neighbour is None:
                return
            if lookup.neighbour.key == record.key:
                return  # an older answer to this very question, which teaches nothing of likeness
        except ApiError:
            return  # inference is overloaded: a label less
        if not likeness.may_ask_judge(lookup):
            await self._label(likeness, lookup, lookup.neighbour, record)
        elif len(self._judging) < _JUDGING and self._budget.has_any(self._monotonic()):
            # Whether there is room does not depend on the answers: what is left out biases nothing.
            self._budget.take(self._monotonic())
            task = asyncio.create_task(self._label(likeness, lookup, lookup.neighbour, record))
            self._judging.add(task)
            task.add_done_callback(self._judging.discard)

    async def _label(
        self,
        likeness: Likeness,
        lookup: Lookup[CompletionRecord],
        neighbour: CompletionRecord,
        record: CompletionRecord,
    ) -> None:
        """Compare a fresh answer with its neighbour's, and remove that if it was served wrongly."""
        try:
            does_agree = await likeness.learn(record.namespace_id, lookup, record.body)
            if lookup.is_hit and not does_agree:
                await self.remove(neighbour)
        except ApiError:
            return  # nobody could say, which is no reason to remove anything
        except StoreError as error:
            logger.warning("an entry that was found to be wrong could not be removed: %s", error)

    def _is_to_be_found(self, likeness: Likeness, record: CompletionRecord) -> bool:
        """Return whether an entry may be found by likeness, and was not replaced meanwhile."""
        entry = self._hot.get(record.key)
        is_current = entry is None or entry.record is record
        return is_current and not likeness.is_quarantined(record.key)

    async def stop(self) -> None:
        """Give up what is being judged."""
        for task in self._judging:
            task.cancel()
        await asyncio.gather(*self._judging, return_exceptions=True)

    def _record_of(
        self, completion: Completion, took_s: float, journey: Journey
    ) -> CompletionRecord:
        created_at = self._now()
        ttl_s = self._lifetimes.choose(journey.namespace_id, journey.control.ttl_s)
        return CompletionRecord(
            namespace_id=journey.namespace_id,
            key=journey.key,
            created_at=created_at,
            fresh_until=created_at + ttl_s,
            expires_at=created_at + ttl_s + self._staleness.of(journey.namespace_id).grace_s,
            took_s=took_s,
            prompt_tokens=completion.prompt_tokens,
            completion_tokens=completion.completion_tokens,
            has_usage=completion.has_usage,
            model=journey.request.model,
            body=completion.body,
        )
