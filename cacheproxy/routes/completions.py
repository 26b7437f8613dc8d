"""A chat request's way: hot tier, exact tier, semantic tier, the upstream, write-back.

The promises that hold here are the embedding route's: a lookup happens only in the caller's
namespace; what was begun before a purge is not served to who asks after it; a sick cache costs time
within its deadline, and never the answer. And two of its own: an answer that is passed on is the
upstream's, byte for byte; what is kept of it is whole, and ended by itself.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache

from cacheproxy.errors import (
    ApiError,
    BadRequest,
    NotCached,
    StoreError,
    Unavailable,
    UpstreamFailed,
)
from cacheproxy.keys import KeyScope, Namespace
from cacheproxy.routes.chat.budget import Budget
from cacheproxy.routes.chat.calls import Calls
from cacheproxy.routes.chat.journey import Cached, Journey, Passed
from cacheproxy.routes.chat.keeping import Keeping
from cacheproxy.routes.chat.likeness import Likeness
from cacheproxy.routes.chat.models import ChatModels
from cacheproxy.routes.chat.record import CompletionRecord
from cacheproxy.routes.chat.request import ChatRequest
from cacheproxy.routes.chat.staleness import ERRORS, StalenessRules
from cacheproxy.routes.exchange import Control
from cacheproxy.stores.purges import Purges
from cacheproxy.telemetry.metrics import Metrics
from cacheproxy.telemetry.stages import Stages
from cacheproxy.tiers.exact import ExactTier
from cacheproxy.tiers.hot import HotEntry, HotTier
from cacheproxy.tiers.semantic import Lookup
from cacheproxy.upstreams.fallback import Upstreams

_ROUTE = "chat"

_SCOPES = 1_024
"""Namespaces whose hashed key prefix is remembered."""

_ASKING = 8
"""Requests of the proxy's own at the same time."""


class ChatPipeline:
    """The way of chat requests, for all models."""

    def __init__(
        self,
        upstreams: Upstreams,
        models: ChatModels,
        keeping: Keeping,
        *,
        hot: HotTier[CompletionRecord],
        exact: ExactTier[CompletionRecord],
        purges: Purges,
        staleness: StalenessRules,
        budget: Budget,
        most_bytes: int,
        metrics: Metrics,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare.

        Args:
            upstreams: who answers.
            models: what is known of models.
            keeping: what becomes of their answers.
            hot, exact: the tiers.
            purges: what is known of purges.
            staleness: what may be served after its time.
            budget: of the requests that the proxy makes on its own account.
            most_bytes: of an answer that is kept.
            metrics: counts.
            now: Unix time, seconds.
            monotonic: seconds.
        """
        self._upstreams = upstreams
        self._models = models
        self._keeping = keeping
        self._staleness = staleness
        self._hot = hot
        self._exact = exact
        self._purges = purges
        self._budget = budget
        self._now = now
        self._monotonic = monotonic
        self._calls = Calls(upstreams, purges, keeping.keep, most_bytes=most_bytes, metrics=metrics)
        self._asking: set[asyncio.Task[None]] = set()
        self._stages = Stages(metrics, ("exact", "semantic", "upstream"))
        self._lookups = metrics.lookups
        self._collapsed = metrics.collapsed
        self._stale_served = metrics.stale_served
        self._reports = metrics.cache_reports
        self._scope_of = lru_cache(_SCOPES)(
            lambda namespace_id, scope: KeyScope(namespace_id, _ROUTE, scope)
        )

    async def answer(
        self,
        request: ChatRequest,
        namespace: Namespace,
        control: Control,
        client: Mapping[bytes, bytes],
    ) -> Cached | Passed:
        """Return the answer, out of the cache or on its way from an upstream.

        `client` are the headers of the request.

        Raises:
            BadRequest: no upstream has the model.
            NotCached: only a cached answer was wanted, and there is none.
            UpstreamFailed, Unavailable: no upstream could answer.
        """
        scope = self._who_answers(request.model, client)
        journey = Journey(request, namespace.id, control, client, scope)
        if request.bypass is None and not control.no_store:
            key_scope = self._scope_of(journey.namespace_id, scope)
            journey.key = key_scope.of_text(request.canonical())
            if control.reads:
                cached = self._from_hot(journey) or await self._from_exact(journey)
                cached = cached or self._from_stale(journey)
                if cached is not None:
                    return cached
            if cached := await self._from_likeness(journey):
                return cached
        if control.only_if_cached:
            raise NotCached("the answer is not cached, and only a cached one is wanted")
        return await self._from_upstream(journey)

    async def report(self, namespace: Namespace, key: bytes, score: float | None) -> int:
        """Remove an entry whose answer a client called wrong; return how many there were.

        `score` is the neighbour's, if it was a semantic hit: then the report is a label.

        Raises:
            BadRequest: the namespace has no such entry (404).
            Unavailable: it could not be removed.
        """
        entry = self._hot.get(key)
        record = entry.record if entry is not None else None
        if record is None or record.namespace_id != namespace.id:
            (record,) = await self._exact.get_many(namespace.id, [key])
        if record is None:
            raise BadRequest("there is no such entry", status=404, param="id", code="not_found")
        try:
            removed = await self._keeping.remove(record)
        except StoreError as error:
            raise Unavailable(f"the entry could not be removed: {error}") from error
        self._reports.labels(self._models.label_of(record.model)).inc()
        likeness = self._models.answered(record.model)
        if likeness is not None and score is not None:
            likeness.reported(namespace.id, score)
        return removed

    def find_hot(self, key: bytes, *, wants_usage: bool) -> HotEntry[CompletionRecord] | None:
        """Return a fresh entry of the hot tier, one that tells its usage if that is wanted.

        A find is counted as a lookup; who finds nothing goes the whole way, which is.
        """
        entry = self._hot.get(key)
        if entry is None or entry.record.fresh_until <= self._now():
            return None
        if wants_usage and not entry.record.has_usage:
            return None
        self._count("hot", entry.record.model, is_hit=True)
        return entry

    def is_shared(self, request: ChatRequest) -> bool:
        """Return whether the caller's authorization has no part in who may have the answer."""
        return not self._upstreams.passes_authorization(request.model)

    async def stop(self) -> None:
        """Give up what was asked on the proxy's own account."""
        for task in self._asking:
            task.cancel()
        await asyncio.gather(*self._asking, return_exceptions=True)
        await self._keeping.stop()

    def _who_answers(self, model: str, client: Mapping[bytes, bytes]) -> str:
        """Return what stands for who answers: the first upstream, which others only stand in for.

        Where the caller's own authorization decides whether there is an answer, it is a part.
        """
        first = self._upstreams.first(model)
        if first is None:
            raise BadRequest(
                f"the model {model[:100]!r} is not served here",
                status=404,
                param="model",
                code="model_not_found",
            )
        if not self._upstreams.passes_authorization(model):
            return first.base_url
        digest = hashlib.sha256(client.get(b"authorization", b"")).hexdigest()
        return f"{first.base_url}#{digest}"

    def _from_hot(self, journey: Journey) -> Cached | None:
        journey.since = self._purges.moment
        entry = self._hot.get(journey.key)
        found = None
        if entry is not None:
            found = self._sift(Cached(entry.record, "hot", entry, journey.stages_s), journey)
        self._count("hot", journey.request.model, is_hit=found is not None)
        return found

    async def _from_exact(self, journey: Journey) -> Cached | None:
        with self._stages.time("exact", journey.stages_s):
            since = self._purges.moment
            (record,) = await self._exact.get_many(journey.namespace_id, [journey.key])
        found = None
        if record is not None:
            entry = self._hot.put(record, since)
            found = self._sift(Cached(record, "exact", entry, journey.stages_s), journey)
        self._count("exact", journey.request.model, is_hit=found is not None)
        return found

    def _sift(self, cached: Cached, journey: Journey) -> Cached | None:
        """Return what answers the request; lay aside what would, were it not after its time."""
        if not self._suits(cached.record, journey):
            return None
        if cached.record.fresh_until > self._now():
            return cached
        journey.stale = cached
        return None

    def _from_stale(self, journey: Journey) -> Cached | None:
        """Return what is after its time, if that may be served while it is asked for anew."""
        stale = journey.stale
        if stale is None:
            return None
        allowed_s = self._staleness.of(journey.namespace_id).while_revalidate_s
        if self._now() - stale.record.fresh_until > allowed_s:
            return None
        self._ask_behind(journey)
        self._stale_served.labels("revalidate").inc()
        return stale

    async def _from_upstream(self, journey: Journey) -> Cached | Passed:
        """Return the upstream's answer, or where it fails, what is after its time and may stand in.

        Raises:
            UpstreamFailed, Unavailable: no upstream could answer.
        """
        with self._stages.time("upstream", journey.stages_s):
            try:
                passed = await self._calls.answer(journey)
            except (UpstreamFailed, Unavailable) as error:
                if stale := self._instead_of(error.status, journey):
                    return stale
                raise
        if passed.head.status in ERRORS and (
            stale := self._instead_of(passed.head.status, journey)
        ):
            passed.reader.flight.leave(passed.reader)
            return stale
        if passed.collapsed:
            self._collapsed.labels(self._models.label_of(journey.request.model)).inc()
        return passed

    def _instead_of(self, status: int, journey: Journey) -> Cached | None:
        """Return what may be served instead of an upstream's error."""
        stale = journey.stale
        if stale is None:
            return None
        allowed_s = self._staleness.of(journey.namespace_id).if_error_s
        if journey.control.stale_if_error_s is not None:
            allowed_s = min(allowed_s, journey.control.stale_if_error_s)
        now, record = self._now(), stale.record
        if now >= record.expires_at or now - record.fresh_until > allowed_s:
            return None
        if not self._purges.is_untouched(record.namespace_id, record.key, journey.since):
            return None
        self._stale_served.labels("error").inc()
        return stale._replace(failed_with=status)

    async def _from_likeness(self, journey: Journey) -> Cached | None:
        """Return a neighbour's answer if it may be served.

        While none may, nothing is looked up here: that is done when the answer is there.
        """
        if not self._models.have_likeness:
            return None
        model, control = journey.request.model, journey.control
        journey.turn = journey.request.turn(journey.scope)
        likeness = self._models.likeness_of(model)
        if likeness is None or journey.turn is None or not (control.reads and control.semantic):
            return None
        if not likeness.is_open(journey.namespace_id):
            return None
        with self._stages.time("semantic", journey.stages_s):
            lookup = journey.lookup = await self._look_up(likeness, journey)
        record = lookup.neighbour
        is_hit = lookup.is_hit and record is not None and self._suits(record, journey)
        if record is not None and record.fresh_until <= self._now():
            is_hit = False
        if control.min_similarity is not None and lookup.score < control.min_similarity:
            is_hit = False
        self._count("semantic", model, is_hit=is_hit)
        likeness.looked_up(journey.namespace_id, journey.stages_s["semantic"], is_hit=is_hit)
        if record is None or not is_hit:
            journey.lookup = lookup._replace(is_hit=False)
            return None
        if lookup.check:
            self._budget.take(self._monotonic())
            self._ask_behind(journey)
        return Cached(record, "semantic", None, journey.stages_s, lookup.score)

    async def _look_up(self, likeness: Likeness, journey: Journey) -> Lookup[CompletionRecord]:
        can_check = len(self._asking) < _ASKING and self._budget.has_any(self._monotonic())
        if journey.turn is None:
            return Lookup()
        try:
            return await likeness.find(
                journey.namespace_id, journey.turn, journey.key, can_check=can_check
            )
        except ApiError:
            return Lookup()  # inference is overloaded, and a lookup is not worth waiting for it

    def _ask_behind(self, journey: Journey) -> None:
        """Ask the upstream what a hit has spared; the answer becomes an entry."""
        if len(self._asking) >= _ASKING:
            return
        request = replace(journey.request, form="plain", body=journey.request.plain_body())
        task = asyncio.create_task(self._ask(replace(journey, request=request, stages_s={})))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    async def _ask(self, journey: Journey) -> None:
        entry = self._hot.get(journey.key)
        if entry is not None and entry.record.fresh_until > self._now():
            return  # asked by somebody else meanwhile
        if self._calls.in_flight(journey):
            return  # being asked
        with self._calls.begin(journey).read() as reader:
            try:
                await reader.body()
            except ApiError:
                return  # no answer, no label; it was counted where it failed

    def _suits(self, record: CompletionRecord, journey: Journey) -> bool:
        """Return whether a record has all that is asked for, and is as young as is asked for."""
        max_age_s = journey.control.max_age_s
        if max_age_s is not None and self._now() - record.created_at > max_age_s:
            return False
        request = journey.request
        # A stream may have told no usage. Who wants to know it asks again.
        return record.has_usage or (request.form == "stream" and not request.wants_usage)

    def _count(self, tier: str, model: str, *, is_hit: bool) -> None:
        result = "hit" if is_hit else "miss"
        self._lookups.labels(self._models.label_of(model), tier, result).inc()
