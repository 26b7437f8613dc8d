"""The way of a completion request: hot tier, exact tier, semantic tier, the upstream, write-back.

A completion request has one answer, whole or streamed, from an upstream: chat, for example. This
file decides which tier is asked when. The promises of the items route hold here, too: a lookup
happens only in the caller's namespace; work that began before a purge is never served to later
requests; a sick cache costs time within its deadline, never the answer. Two more: an upstream's
answer is passed on byte for byte, and only a complete answer is kept.
"""

import time
from collections.abc import Callable, Mapping
from functools import lru_cache

from cacheproxy.errors import BadRequest, NotCached, Unavailable, UpstreamFailed
from cacheproxy.keys import Namespace
from cacheproxy.routes.chat.learning import Learning
from cacheproxy.routes.chat.likeness import Near
from cacheproxy.routes.chat.models import ChatModels
from cacheproxy.routes.chat.record import CompletionRecord
from cacheproxy.routes.chat.refresh import Refresh
from cacheproxy.routes.chat.staleness import ERRORS, StalenessRules
from cacheproxy.routes.chat.state import Cached, CompletionState, Passed
from cacheproxy.routes.chat.upstream_calls import UpstreamCalls
from cacheproxy.routes.dialects.request import CompletionRequest
from cacheproxy.routes.exchange import Control, Outcome
from cacheproxy.routes.repeated import Repeated, RepeatedLookup
from cacheproxy.stores.purges import Purges
from cacheproxy.telemetry.lookup_counts import LookupCounts
from cacheproxy.telemetry.metrics import Metrics
from cacheproxy.telemetry.stages import Stages
from cacheproxy.tiers.keyed import Found, KeyedTiers


class CompletionsRoute:
    """The way of completion requests, for all models."""

    def __init__(
        self,
        models: ChatModels,
        calls: UpstreamCalls,
        learning: Learning,
        refresh: Refresh,
        *,
        tiers: KeyedTiers[CompletionRecord],
        purges: Purges,
        staleness: StalenessRules,
        caches_tools: Callable[[str], bool],
        metrics: Metrics,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Prepare.

        Args:
            models: what is known of models.
            calls: calls upstreams.
            learning: learns from semantic hits.
            refresh: refreshes expired entries behind a hit.
            tiers: the hot and the exact tier.
            purges: what is known of purges.
            staleness: for how long expired completions may be served.
            caches_tools: whether tool calls are cached in a namespace, by its id.
            metrics: counts.
            now: Unix time, seconds.
        """
        self._models = models
        self._calls = calls
        self._learning = learning
        self._refresh = refresh
        self._tiers = tiers
        self._purges = purges
        self._staleness = staleness
        self._caches_tools = caches_tools
        self._now = now
        self._stages = Stages(metrics, ("exact", "semantic", "upstream"))
        self.repeated = RepeatedLookup(
            tiers, self._stages, lambda record: self._counts(record.model)
        )
        self._stale_served = metrics.stale_served
        self._counts_of_label = lru_cache(None)(lambda label: LookupCounts(metrics, label))

    async def serve(
        self,
        request: CompletionRequest,
        namespace: Namespace,
        control: Control,
        client: Mapping[bytes, bytes],
        repeated: Repeated[CompletionRecord] | None = None,
    ) -> Cached | Passed:
        """Return the answer, from the cache or on its way from an upstream.

        `client` holds the headers of the request. A key that `repeated` did not find is not asked
        for again.

        Raises:
            BadRequest: no upstream has the model.
            NotCached: only a cached answer was allowed, and there is none.
            UpstreamFailed, Unavailable: no upstream could answer.
        """
        request = self._as_cached(request, namespace.id)
        scope = self._calls.scope_of(request.model, client)
        state = CompletionState(request, namespace.id, control, client, scope)
        if request.bypass is None and not control.no_store:
            state.key = request.key(namespace.id, scope)
            if cached := await self._from_tiers(state, repeated):
                return cached
            if control.read_only:
                state.key = b""  # so that its answer is neither kept nor shared
        if control.only_if_cached:
            raise NotCached("the answer is not cached, and only a cached one is allowed")
        return await self._from_upstream(state)

    async def _from_tiers(
        self, state: CompletionState, repeated: Repeated[CompletionRecord] | None
    ) -> Cached | None:
        if state.control.reads:
            cached = self._from_hot(state)
            cached = cached or await self._from_exact(state, repeated)
            if cached is None and state.control.keeps:
                cached = self._from_stale(state)
            if cached is not None:
                return cached
        cached = await self._from_semantic(state) if state.control.keeps else None
        return cached or (self._finished_since(state) if state.control.reads else None)

    def _finished_since(self, state: CompletionState) -> Cached | None:
        """Return what another request has finished while this one was looked up in the store."""
        tier: Outcome = "hot"
        if entry := self._tiers.hot.get(state.key):
            found: Found[CompletionRecord] | None = Found(entry.record, entry)
        else:
            tier, found = "exact", self._tiers.from_writeback(state.namespace_id, state.key)
        if found is None or not self._suits(found.record, state) or not self.is_fresh(found.record):
            return None
        self._counts(state.request.model).count(tier, hits=1)
        return Cached(found.record, tier, found.hot_entry, state.stages_s)

    def is_fresh(self, record: CompletionRecord) -> bool:
        """Return whether a record answers a stream without usage."""
        return record.fresh_until > self._now()

    def is_fresh_with_usage(self, record: CompletionRecord) -> bool:
        """Return whether a record answers any other request."""
        return record.has_usage and record.fresh_until > self._now()

    def key_of(self, namespace_id: str, request: CompletionRequest) -> bytes:
        """Return the key [32 bytes] of a request's entry in a namespace.

        Raises:
            BadRequest: it has none; or none that all callers share; or no upstream has the model.
        """
        request = self._as_cached(request, namespace_id)
        if request.bypass is not None:
            raise BadRequest(f"such a request is not cached: {request.bypass}")
        scope = self._calls.scope_of(request.model, {})
        if not self.is_shared(request):
            raise BadRequest(
                "each caller of this model has entries of its own; give the key, which is in the"
                " answer's X-Cacheproxy-Entry"
            )
        return request.key(namespace_id, scope)

    def _as_cached(self, request: CompletionRequest, namespace_id: str) -> CompletionRequest:
        if request.bypass == "tools" and self._caches_tools(namespace_id):
            return request.with_tools_cached()
        return request

    def is_shared(self, request: CompletionRequest) -> bool:
        """Return whether callers with different authorization share the entry of a request."""
        return self._calls.is_shared(request.model)

    def _from_hot(self, state: CompletionState) -> Cached | None:
        state.since = self._purges.moment
        entry = self._tiers.hot.get(state.key)
        found = None if entry is None else Found(entry.record, entry)
        return self._sift("hot", found, state)

    async def _from_exact(
        self, state: CompletionState, repeated: Repeated[CompletionRecord] | None
    ) -> Cached | None:
        if repeated is not None and repeated.key == state.key:
            found = repeated.found
            state.stages_s |= repeated.stages_s
        else:
            with self._stages.time("exact", state.stages_s):
                (found,) = await self._tiers.from_exact(state.namespace_id, [state.key])
        return self._sift("exact", found, state)

    def _sift(
        self, tier: Outcome, found: Found[CompletionRecord] | None, state: CompletionState
    ) -> Cached | None:
        """Return the record of a tier if it answers the request; keep an expired one in mind."""
        cached = None
        if found is not None and self._suits(found.record, state):
            cached = Cached(found.record, tier, found.hot_entry, state.stages_s)
        if cached is not None and cached.record.fresh_until <= self._now():
            cached, state.stale = None, cached
        self._count(tier, state, is_hit=cached is not None)
        return cached

    def _from_stale(self, state: CompletionState) -> Cached | None:
        """Return the expired record if it may be served while it is refreshed (RFC 5861)."""
        stale = state.stale
        if stale is None:
            return None
        allowed_s = self._staleness.of(state.namespace_id).while_revalidate_s
        if self._now() - stale.record.fresh_until > allowed_s:
            return None
        self._refresh.start(state)
        self._stale_served.labels("revalidate").inc()
        return stale

    async def _from_semantic(self, state: CompletionState) -> Cached | None:
        """Return a neighbour's answer if it may be served.

        While the tier is closed nothing is looked up here: that happens behind the answer.
        """
        if not self._models.have_likeness:
            return None
        control = state.control
        state.user_turn = state.request.user_turn(state.scope)
        likeness = self._models.likeness_of(state.request.model)
        if likeness is None or state.user_turn is None:
            return None
        if not (control.reads and control.semantic and likeness.is_open(state.namespace_id)):
            return None
        with self._stages.time("semantic", state.stages_s):
            near = state.near = await likeness.tier.find(
                state.namespace_id,
                state.user_turn,
                state.key,
                spent_s=state.stages_s.get("exact", 0.0),
            )
        is_hit = self._may_serve(near, state)
        self._count("semantic", state, is_hit=is_hit)
        if near.neighbour is None or not is_hit:
            state.near = near._replace(is_hit=False)
            return None
        self._learning.served(state, likeness)
        return Cached(near.neighbour, "semantic", None, state.stages_s, near.score)

    def _may_serve(self, near: Near, state: CompletionState) -> bool:
        record, least = near.neighbour, state.control.min_similarity
        if record is None or not near.is_hit or (least is not None and near.score < least):
            return False
        return record.fresh_until > self._now() and self._suits(record, state)

    async def _from_upstream(self, state: CompletionState) -> Cached | Passed:
        """Return the upstream's answer or, if it fails, an expired record that may replace it.

        Raises:
            UpstreamFailed, Unavailable: no upstream could answer.
        """
        with self._stages.time("upstream", state.stages_s):
            try:
                passed = await self._calls.answer(state)
            except (UpstreamFailed, Unavailable) as error:
                if stale := self._instead_of(error.status, state):
                    return stale
                raise
        status = passed.head.status
        if status in ERRORS and (stale := self._instead_of(status, state)):
            passed.reader.flight.leave(passed.reader)
            return stale
        if passed.collapsed:
            self._counts(state.request.model).joined()
        return passed

    def _instead_of(self, status: int, state: CompletionState) -> Cached | None:
        """Return the expired record if it may be served instead of an error (RFC 5861)."""
        stale = state.stale
        if stale is None:
            return None
        allowed_s = self._staleness.of(state.namespace_id).if_error_s
        if state.control.stale_if_error_s is not None:
            allowed_s = min(allowed_s, state.control.stale_if_error_s)
        now, record = self._now(), stale.record
        if now >= record.expires_at or now - record.fresh_until > allowed_s:
            return None
        if not self._purges.is_untouched(record.namespace_id, record.key, state.since):
            return None
        self._stale_served.labels("error").inc()
        return stale._replace(failed_with=status)

    def _suits(self, record: CompletionRecord, state: CompletionState) -> bool:
        """Return whether a record is young enough and tells what the request wants to know."""
        max_age_s = state.control.max_age_s
        if max_age_s is not None and self._now() - record.created_at > max_age_s:
            return False
        request = state.request
        # The stream that a record was made of may have told no usage; a request for it is a miss.
        return record.has_usage or (request.form == "stream" and not request.wants_usage)

    def _count(self, tier: str, state: CompletionState, *, is_hit: bool) -> None:
        self._counts(state.request.model).count(tier, hits=is_hit, misses=not is_hit)

    def _counts(self, model: str) -> LookupCounts:
        return self._counts_of_label(self._models.label_of(model))
