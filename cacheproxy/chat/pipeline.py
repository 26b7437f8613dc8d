"""A chat request's way: hot tier, exact tier, the upstream, write-back.

The promises that hold here are the embedding route's: a lookup happens only in the caller's
namespace; what was begun before a purge is not served to who asks after it; a sick cache costs time
within its deadline, and never the answer. And two of its own: an answer that is passed on is the
upstream's, byte for byte; what is kept of it is whole, and ended by itself.
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from cacheproxy.chat.completion import Completion, keepable, malformed, read_answer
from cacheproxy.chat.events import Assembler, EventCutter
from cacheproxy.chat.flights import Flight, Flights, Reader
from cacheproxy.chat.record import CompletionRecord, pack
from cacheproxy.chat.request import ChatRequest
from cacheproxy.errors import ApiError, BadRequest, NotCached, UpstreamFailed
from cacheproxy.exchange import Control, Outcome
from cacheproxy.keys import KeyScope, Namespace
from cacheproxy.metrics import Metrics
from cacheproxy.stages import Stages
from cacheproxy.stores.purges import Purges
from cacheproxy.stores.store import Entry, Partition
from cacheproxy.tiers.exact import ExactTier
from cacheproxy.tiers.hot import HotEntry, HotTier
from cacheproxy.tiers.lifetime import Lifetimes
from cacheproxy.tiers.writeback import WriteBack
from cacheproxy.upstreams.client import Answer, Head
from cacheproxy.upstreams.fallback import Upstreams

logger = logging.getLogger(__name__)

_ROUTE = "chat"
_PATH = "chat/completions"

_SCOPES = 1_024
"""Namespaces whose hashed key prefix is remembered."""

_MODELS = 64
"""Models with metrics of their own, where any may be asked for; the others are one."""

_LAST_BYTES_S = 1.0
"""What an upstream gets to end its stream after the last event, so that its connection is kept."""


class Cached(NamedTuple):
    """An answer out of the cache.

    Attributes:
        record: the completion.
        outcome: the tier that had it.
        hot_entry: where rendered forms of it may be kept, or None.
        stages_s: the seconds that each stage took.
        score: the neighbour's, for a semantic hit.
    """

    record: CompletionRecord
    outcome: Outcome
    hot_entry: HotEntry[CompletionRecord] | None
    stages_s: dict[str, float]
    score: float | None = None


class Passed(NamedTuple):
    """An answer that is passed on from an upstream.

    Attributes:
        head: how it begins.
        reader: gives its body; it must be left.
        is_bypass: whether the tiers took no part.
        collapsed: whether another request's call is read along.
        stages_s: the seconds that each stage took.
    """

    head: Head
    reader: Reader
    is_bypass: bool
    collapsed: bool
    stages_s: dict[str, float]


@dataclass(slots=True)
class _Journey:
    """One request on its way."""

    request: ChatRequest
    namespace_id: str
    control: Control
    client: Mapping[bytes, bytes]
    key: bytes = b""
    fingerprint: str = ""
    stages_s: dict[str, float] = field(default_factory=dict)


class ChatPipeline:
    """The way of chat requests, for all models."""

    def __init__(
        self,
        upstreams: Upstreams,
        *,
        hot: HotTier[CompletionRecord],
        exact: ExactTier[CompletionRecord],
        writeback: WriteBack,
        purges: Purges,
        lifetimes: Lifetimes,
        most_bytes: int,
        metrics: Metrics,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._upstreams = upstreams
        self._hot = hot
        self._exact = exact
        self._writeback = writeback
        self._purges = purges
        self._lifetimes = lifetimes
        self._most_bytes = most_bytes
        self._now = now
        self._flights = Flights()
        self._stages = Stages(metrics, ("exact", "upstream"))
        self._metrics = metrics
        self._named = set(upstreams.models())
        self._scope_of = lru_cache(_SCOPES)(
            lambda namespace_id, fingerprint: KeyScope(namespace_id, _ROUTE, fingerprint)
        )

    def label_of(self, model: str) -> str:
        """Return the name under which metrics count a model, of which there are a bounded number.

        Only a model that an upstream has answered for has one of its own.
        """
        return model if model in self._named else "other"

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
        journey = _Journey(request, namespace.id, control, client)
        journey.fingerprint = self._fingerprint(request.model, client)
        if request.bypass is None and not control.no_store:
            scope = self._scope_of(journey.namespace_id, journey.fingerprint)
            journey.key = scope.of_text(request.canonical())
            if control.reads and (cached := await self._from_tiers(journey)):
                return cached
        if control.only_if_cached:
            raise NotCached("the answer is not cached, and only a cached one is wanted")
        return await self._from_upstream(journey)

    def is_shared(self, request: ChatRequest) -> bool:
        """Return whether the caller's authorization has no part in who may have the answer."""
        return not self._upstreams.passes_authorization(request.model)

    def find_hot(self, key: bytes) -> HotEntry[CompletionRecord] | None:
        """Return a fresh entry of the hot tier.

        A find is counted as a lookup; who finds nothing goes the whole way, which is.
        """
        entry = self._hot.get(key)
        if entry is None or entry.record.fresh_until <= self._now():
            return None
        self._count("hot", entry.record.model, is_hit=True)
        return entry

    def _fingerprint(self, model: str, client: Mapping[bytes, bytes]) -> str:
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

    async def _from_tiers(self, journey: _Journey) -> Cached | None:
        entry = self._hot.get(journey.key)
        is_hit = entry is not None and self._serves(entry.record, journey)
        self._count("hot", journey.request.model, is_hit=is_hit)
        if entry is not None and is_hit:
            return Cached(entry.record, "hot", entry, journey.stages_s)
        with self._stages.time("exact", journey.stages_s):
            since = self._purges.moment
            (record,) = await self._exact.get_many(journey.namespace_id, [journey.key])
        is_hit = record is not None and self._serves(record, journey)
        self._count("exact", journey.request.model, is_hit=is_hit)
        if record is None or not is_hit:
            return None
        return Cached(record, "exact", self._hot.put(record, since), journey.stages_s)

    def _serves(self, record: CompletionRecord, journey: _Journey) -> bool:
        """Return whether a record answers the request: in time, and with all that is asked for."""
        now, max_age_s = self._now(), journey.control.max_age_s
        if record.fresh_until <= now:
            return False
        if max_age_s is not None and now - record.created_at > max_age_s:
            return False
        request = journey.request
        # A stream may have told no usage. Who wants to know it asks again.
        return record.has_usage or (request.form == "stream" and not request.wants_usage)

    async def _from_upstream(self, journey: _Journey) -> Passed:
        """Return the upstream's answer, read along with others who ask the same.

        One who joined a call that then failed asks once on his own: what went wrong with another's
        call need not with his.
        """
        with self._stages.time("upstream", journey.stages_s):
            flight = self._flight_of(journey)
            if flight is not None:
                passed = await self._follow(flight, journey)
                if passed is not None:
                    return passed
            flight = self._flight_of(journey) if flight is not None else None
            is_new = flight is None
            reader = (flight or self._begin(journey)).read()
            try:
                head = await reader.flight.head()
            except BaseException:
                reader.flight.leave(reader)
                raise
        return Passed(head, reader, not journey.key, not is_new, journey.stages_s)

    async def _follow(self, flight: Flight, journey: _Journey) -> Passed | None:
        """Return what a call in flight brings; None if it brings no answer."""
        reader = flight.read()
        try:
            head = await flight.head()
        except ApiError:
            flight.leave(reader)
            return None
        except BaseException:
            flight.leave(reader)
            raise
        if head.status != 200:
            flight.leave(reader)
            return None
        self._metrics.collapsed.labels(self.label_of(journey.request.model)).inc()
        return Passed(head, reader, is_bypass=False, collapsed=True, stages_s=journey.stages_s)

    def _flight_of(self, journey: _Journey) -> Flight | None:
        """Return the call that can be joined, unless it began before a purge of what it brings."""
        if not journey.key:
            return None
        flight = self._flights.get(journey.key, journey.request.form)
        if flight is None:
            return None
        is_untouched = self._purges.is_untouched(journey.namespace_id, journey.key, flight.since)
        return flight if is_untouched else None

    def _begin(self, journey: _Journey) -> Flight:
        flight = Flight(
            self._purges.moment, most_bytes=self._most_bytes, waiting=self._metrics.chat_waiting
        )
        if journey.key:
            self._flights.put(journey.key, journey.request.form, flight)
        flight.start(self._fly(flight, self._purges.generation, journey))
        return flight

    async def _fly(self, flight: Flight, generation: int, journey: _Journey) -> None:
        """Make one upstream call, tell the flight how it goes, and keep what it brings."""
        request, answer = journey.request, None
        started = time.perf_counter()

        def keep(completion: Completion | None) -> None:
            if completion is not None and journey.key:
                took_s = time.perf_counter() - started
                self._keep(completion, took_s, flight, generation, journey)

        try:
            answer = await self._upstreams.post(request.model, _PATH, request.body, journey.client)
            if answer.head.status == 200:
                self._name(request.model)
            if answer.head.status != 200:
                body = await answer.read()
                flight.begin(answer.head)
                await flight.add(body)
            elif request.form == "plain":
                body = await answer.read()
                keep(keepable(read_answer(body), body))
                flight.begin(answer.head)
                await flight.add(body)
            else:
                await self._pass_stream(answer, flight, keep)
            flight.end()
        except ApiError as error:
            if answer is not None:
                kind = (error.code or "").removeprefix("upstream_")
                self._upstreams.broke_off(answer.head.upstream, kind)
            flight.fail(error)
        except Exception:
            logger.exception("a mistake in a call of an upstream")
            flight.fail(UpstreamFailed("the upstream's answer could not be passed on"))
        finally:
            self._flights.remove(journey.key, request.form, flight)
            if answer is not None:
                answer.close()

    async def _pass_stream(
        self, answer: Answer, flight: Flight, keep: Callable[[Completion | None], None]
    ) -> None:
        if not answer.head.is_of(b"text/event-stream"):
            raise malformed("it was asked for a stream, and answered something else")
        cutter, assembler = EventCutter(), Assembler()
        has_begun = False
        async for chunk in answer.chunks():
            events = cutter.cut(chunk)
            well = assembler.take_all(events)
            if assembler.is_done:
                keep(assembler.completion() if flight.is_held else None)
            if well and not has_begun:
                flight.begin(answer.head)
                has_begun = True
            if well:
                await flight.add(b"".join(events[:well]))
            if well < len(events):
                raise malformed("an event of its stream is not a JSON object")
            if assembler.is_done:
                flight.end()
                await _read_out(answer)
                return
        raise UpstreamFailed("the upstream broke off its answer", code="upstream_truncated")

    def _keep(
        self,
        completion: Completion,
        took_s: float,
        flight: Flight,
        generation: int,
        journey: _Journey,
    ) -> None:
        """Put a whole completion into the tiers, unless it is too long."""
        if len(completion.body) > self._most_bytes:
            return
        created_at = self._now()
        ttl_s = self._lifetimes.choose(journey.namespace_id, journey.control.ttl_s)
        record = CompletionRecord(
            namespace_id=journey.namespace_id,
            key=journey.key,
            created_at=created_at,
            fresh_until=created_at + ttl_s,
            expires_at=created_at + ttl_s,
            took_s=took_s,
            prompt_tokens=completion.prompt_tokens,
            completion_tokens=completion.completion_tokens,
            has_usage=completion.has_usage,
            model=journey.request.model,
            body=completion.body,
        )
        self._hot.put(record, flight.since)
        flight.record = record
        flight.is_stored = self._writeback.put(
            Entry(
                key=journey.key,
                partition=Partition(journey.namespace_id, journey.fingerprint),
                record=pack(record),
                expires_at=record.expires_at,
                tags=journey.control.tags,
                generation=generation,
            ),
            flight.since,
        )

    def _name(self, model: str) -> None:
        if len(self._named) < _MODELS:
            self._named.add(model)

    def _count(self, tier: str, model: str, *, is_hit: bool) -> None:
        result = "hit" if is_hit else "miss"
        self._metrics.lookups.labels(self.label_of(model), tier, result).inc()


async def _read_out(answer: Answer) -> None:
    """Read to the end of a stream whose last event has come."""
    try:
        async with asyncio.timeout(_LAST_BYTES_S):
            await answer.read()
    except (TimeoutError, UpstreamFailed):
        return
