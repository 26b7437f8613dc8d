"""A request's way: hot tier, exact tier, semantic tier, inference, write-back.

Each text of a request takes its own way, and the answer keeps the order of the inputs. This file
decides; how each tier works is the tier's own business. The promises that hold here: a lookup
happens only in the caller's namespace; a text is inferred once, however many ask for it at the
same time; what was begun before a purge is not served to who asks after it; a cache that is sick
costs time within its deadline, and never the answer.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np

from cacheproxy.concurrency.job_thread import JobThread
from cacheproxy.errors import ApiError, NotCached
from cacheproxy.inference.engine import Engine, Given, Inferred
from cacheproxy.inference.queue import Turn, Vector
from cacheproxy.inference.tokenizer import Tokenizer
from cacheproxy.keys import KeyScope
from cacheproxy.records import EmbeddingRecord, pack
from cacheproxy.routes.exchange import Answer, Control, ModelInfo, Request, Served
from cacheproxy.stores.protocol import Entry
from cacheproxy.stores.purges import Purges
from cacheproxy.telemetry.metrics import Metrics
from cacheproxy.telemetry.stages import Stages
from cacheproxy.tiers.exact import ExactTier
from cacheproxy.tiers.hot import HotEntry, HotTier
from cacheproxy.tiers.lifetime import Lifetimes
from cacheproxy.tiers.semantic import Lookup, SemanticTier
from cacheproxy.tiers.singleflight import Flight, SingleFlight
from cacheproxy.tiers.sparework import SpareWork
from cacheproxy.tiers.writeback import WriteBack

_ROUTE = "embeddings"

_INLINE_CHARACTERS = 2_000
"""Texts of up to so many characters in all are tokenised on the event loop: about half a
millisecond of work, where a trip to another thread costs a tenth."""

_PART = 128
"""Texts of one request between two turns of the event loop: a millisecond or two of work."""

_LOOKUPS_PAY = 0.1
"""Share of exact hits from which texts are looked up although inference is overloaded: tokenising
and a lookup take up to a tenth of an inference's time (16 tokens; less for longer texts)."""

_FOUND_WEIGHT = 0.02
"""Of one request in that share: about the last fifty count."""

_CHARACTERS = 4
"""Of one token of English text, or fewer: what is not tokenised yet is not held for longer."""

_SCOPES = 1_024
"""Namespaces whose hashed key prefix is remembered."""


class Known(NamedTuple):
    """What was found by a key that is known from before.

    Attributes:
        key: of the entry [32 bytes].
        served: the answer, if there is one.
        stages_s: the seconds that the store was asked for.
    """

    key: bytes
    served: Served | None
    stages_s: dict[str, float]


_NOT_LOOKED_UP: Lookup[EmbeddingRecord] = Lookup()


@dataclass(slots=True)
class _Text:
    """One input on its way."""

    input: str | list[int]
    text_key: bytes | None = None
    ids: Sequence[int] = ()
    key: bytes = b""
    lookup: Lookup[EmbeddingRecord] = _NOT_LOOKED_UP
    served: Served | None = None

    @property
    def given(self) -> Given:
        return Given(self.input, self.ids)


@dataclass(slots=True)
class _Journey:
    """What all texts of one request share on their way."""

    request: Request
    scope: KeyScope
    missing: Known | None = None
    turn: Turn | None = None
    stages_s: dict[str, float] = field(default_factory=dict)

    @property
    def control(self) -> Control:
        return self.request.control

    @property
    def namespace_id(self) -> str:
        return self.request.namespace.id


class EmbeddingPipeline:
    """The way of embedding requests for one model."""

    def __init__(
        self,
        model: ModelInfo,
        *,
        tokenizer: Tokenizer,
        hot: HotTier[EmbeddingRecord],
        exact: ExactTier[EmbeddingRecord],
        semantic: SemanticTier[EmbeddingRecord],
        engine: Engine,
        writeback: WriteBack,
        purges: Purges,
        spare_work: SpareWork,
        tokenizing: JobThread,
        lifetimes: Lifetimes,
        metrics: Metrics,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.model = model
        self._tokenizer = tokenizer
        self._hot = hot
        self._exact = exact
        self._semantic = semantic
        self._engine = engine
        self._writeback = writeback
        self._purges = purges
        self._spare_work = spare_work
        self._tokenizing = tokenizing
        self._lifetimes = lifetimes
        self._now = now
        self._flights = SingleFlight[Any]()
        self._found_share = 0.0
        self._scope_of = lru_cache(_SCOPES)(
            lambda namespace_id: KeyScope(namespace_id, _ROUTE, model.fingerprint)
        )
        self._lookups = {
            (tier, result): metrics.lookups.labels(model.name, tier, result)
            for tier in ("hot", "exact", "semantic")
            for result in ("hit", "miss")
        }
        self._collapsed = metrics.collapsed.labels(model.name)
        self._truncated = metrics.truncated_texts.labels(model.name)
        self._stages = Stages(metrics, ("tokenize", "exact", "probe", "semantic", "inference"))

    async def embed(self, request: Request, missing: Known | None = None) -> Answer:
        """Return the embedding of every input; for what is `missing` the store is not asked again.

        Raises:
            BadRequest: a token id is outside the vocabulary.
            NotCached: only cached answers were wanted, and one is missing.
            Overloaded, Unavailable, InferenceFailed: inference could not answer.
        """
        scope = self._scope_of(request.namespace.id)
        if served := self._all_hot(request, scope):
            return Answer(served, {})
        texts = [_Text(given) for given in request.inputs]
        journey = _Journey(request, scope, missing)
        try:
            await self._serve_all(texts, journey)
        finally:
            if journey.turn is not None:
                self._engine.end(journey.turn)
        return Answer([text.served for text in texts if text.served], journey.stages_s)

    async def _serve_all(self, texts: list[_Text], journey: _Journey) -> None:
        waiting = self._from_hot_by_text(texts, journey)
        if waiting:
            self._admit_at_the_door(waiting, journey)
            await self._tokenize(waiting, journey)
            waiting = self._from_hot(waiting, journey)
        self._count("hot", texts, journey)
        if waiting:
            waiting = await self._from_exact(waiting, journey)
        if waiting:
            self._admit(waiting, journey)
            waiting = await self._from_semantic(waiting, journey)
        if waiting:
            await self._from_inference(waiting, journey)

    def key_of_text(self, namespace_id: str, text: str) -> bytes:
        """Return the key [32 bytes] of a text's entry in a namespace."""
        (ids,) = self._tokenizer.encode([text])
        return self._engine.key_of(self._scope_of(namespace_id), Given(text, ids))

    async def find_known(self, namespace_id: str, key: bytes) -> Known:
        """Look up an entry by a key that is known from before, without its text.

        A find is counted as the lookups that it stands for; who finds nothing goes the whole way.
        """
        if entry := self._hot.get(key):
            self._lookups["hot", "hit"].inc()
            return Known(key, Served(entry.record, "hot", entry), {})
        stages_s: dict[str, float] = {}
        with self._stages.time("exact", stages_s):
            since = self._purges.moment
            (record,) = await self._exact.get_many(namespace_id, [key])
        if record is None:
            return Known(key, None, stages_s)
        self._note_found(1.0)
        self._lookups["hot", "miss"].inc()
        self._lookups["exact", "hit"].inc()
        return Known(key, Served(record, "exact", self._hot.put(record, since)), stages_s)

    def _all_hot(self, request: Request, scope: KeyScope) -> list[Served] | None:
        """Return the answers if the hot tier has every input as it stands, else None.

        The way of the busiest requests, cut short; what it cannot do goes the whole way.
        """
        if not request.control.reads:
            return None
        served = []
        for given in request.inputs:
            entry = self._hot.get_by_text(scope.of_text(given)) if isinstance(given, str) else None
            if entry is None or not self._is_fresh(entry.record, request.control):
                return None
            served.append(Served(entry.record, "hot", entry))
        self._lookups["hot", "hit"].inc(len(served))
        return served

    def _from_hot_by_text(self, texts: list[_Text], journey: _Journey) -> list[_Text]:
        if not journey.control.reads:
            return texts
        for text in texts:
            if isinstance(text.input, str):
                text.text_key = journey.scope.of_text(text.input)
                self._serve_hot(text, self._hot.get_by_text(text.text_key), journey)
        return _unserved(texts)

    def _admit_at_the_door(self, texts: list[_Text], journey: _Journey) -> None:
        """Keep a place in the queue before anything is looked up, where that does not pay.

        Raises:
            Overloaded: inference is overloaded, and lookups seldom spare any.
        """
        if not self._engine.is_overloaded or journey.control.only_if_cached:
            return
        if self._found_share < _LOOKUPS_PAY or not journey.control.reads:
            tokens = sum(_least_tokens(text.input) for text in texts)
            journey.turn = self._engine.begin(tokens)

    def _admit(self, texts: list[_Text], journey: _Journey) -> None:
        """Keep a place in the queue before probes are paid for; raises `Overloaded`."""
        if journey.turn is None and not journey.control.only_if_cached:
            new = (text for text in texts if not self._flight_of(text, journey))
            journey.turn = self._engine.begin(sum(len(text.ids) for text in new))

    async def _tokenize(self, texts: list[_Text], journey: _Journey) -> None:
        given = [text.input for text in texts]
        strings = [value for value in given if isinstance(value, str)]
        with self._stages.time("tokenize", journey.stages_s):
            if sum(map(len, strings)) <= _INLINE_CHARACTERS:
                encoded = iter(self._tokenizer.encode(strings))
            else:
                encode = partial(self._tokenizer.encode, strings)
                encoded = iter(await self._tokenizing.run(encode))
        for text, value in zip(texts, given, strict=True):
            text.ids = next(encoded) if isinstance(value, str) else self._engine.ids_of(value)
            text.key = self._engine.key_of(journey.scope, text.given)
        self._truncated.inc(sum(self._engine.is_cut(text.ids) for text in texts))

    def _from_hot(self, texts: list[_Text], journey: _Journey) -> list[_Text]:
        if not journey.control.reads:
            return texts
        for text in texts:
            self._serve_hot(text, self._hot.get(text.key), journey)
        return _unserved(texts)

    async def _from_exact(self, texts: list[_Text], journey: _Journey) -> list[_Text]:
        if not journey.control.reads:
            return texts
        keys = [text.key for text in texts]
        if journey.missing is not None and keys == [journey.missing.key]:
            journey.stages_s |= journey.missing.stages_s
        else:
            with self._stages.time("exact", journey.stages_s):
                since = self._purges.moment
                records = await self._exact.get_many(journey.namespace_id, keys)
            for text, record in zip(texts, records, strict=True):
                self._serve_exact(text, record, since, journey)
        self._count("exact", texts, journey)
        missed = _unserved(texts)
        self._note_found(1 - len(missed) / len(texts))
        return missed

    def _note_found(self, share: float) -> None:
        self._found_share += _FOUND_WEIGHT * (share - self._found_share)

    async def _from_semantic(self, texts: list[_Text], journey: _Journey) -> list[_Text]:
        control = journey.control
        if control.no_store:
            return texts
        is_idle = self._spare_work.may_begin
        if not self._semantic.is_active(journey.namespace_id, len(texts), is_idle=is_idle):
            return texts
        with self._stages.time("probe", journey.stages_s):
            probes = await self._semantic.probe([text.ids for text in texts])
        if not (control.reads and control.semantic):
            for text, probe in zip(texts, probes, strict=True):
                text.lookup = Lookup(probe)  # so that its entry can be indexed
            return texts
        stages_s = journey.stages_s
        with self._stages.time("semantic", journey.stages_s):
            lookups = await self._semantic.find(
                self._semantic.partition_of(journey.namespace_id),
                probes,
                [text.key for text in texts],
                min_similarity=control.min_similarity,
                can_check=not self._spare_work.is_full,
                spent_s=stages_s.get("exact", 0.0),
            )
        for text, lookup in zip(texts, lookups, strict=True):
            text.lookup = lookup
            record = lookup.neighbour
            if lookup.is_hit and record is not None and self._is_fresh(record, control):
                text.served = Served(record, "semantic", score=lookup.score)
                if lookup.check:
                    since = self._purges.moment
                    self._spare_work.put(partial(self._check, text, since, journey))
        self._count("semantic", texts, journey)
        waiting = _unserved(texts)
        seconds = stages_s["probe"] + stages_s["semantic"]
        hits = len(texts) - len(waiting)
        self._semantic.looked_up(journey.namespace_id, seconds, len(texts), hits)
        return waiting

    def _check(self, text: _Text, since: int, journey: _Journey) -> asyncio.Future[Any] | None:
        """Begin the inference that a semantic hit has spared: its result becomes an entry, too."""
        if self._hot.get(text.key) or self._flights.get(text.key):
            return None  # compared already, or about to be
        if not self._purges.is_untouched(journey.namespace_id, text.key, since):
            return None  # what was asked for before a purge makes no entry after it
        try:
            (future,) = self._engine.submit([text.given])
        except ApiError:
            return None  # refused as the server stops
        self._begin(text, future, journey)
        return future

    async def _from_inference(self, texts: list[_Text], journey: _Journey) -> None:
        if journey.control.only_if_cached:
            raise NotCached(f"{len(texts)} inputs are not cached, and only cached ones are wanted")
        with self._stages.time("inference", journey.stages_s):
            await self._infer(texts, journey)
        seconds = journey.stages_s["inference"]
        self._semantic.inferred(journey.namespace_id, seconds, len(texts))

    async def _infer(self, texts: list[_Text], journey: _Journey) -> None:
        flights: dict[bytes, Flight[Any]] = {}
        leading: dict[bytes, _Text] = {}
        try:
            async for part in _in_parts(texts):
                self._take_off(part, flights, leading, journey)
            await self._flights.wait(list(flights.values()))
        finally:
            self._flights.release(flights.values())

        async for part in _in_parts(_unserved(texts)):
            for text in part:
                self._serve_inferred(text, flights, leading, journey)

    def _take_off(
        self,
        texts: list[_Text],
        flights: dict[bytes, Flight[Any]],
        leading: dict[bytes, _Text],
        journey: _Journey,
    ) -> None:
        """Join the flights of the texts that are in the air, and begin those of the others."""
        started: list[_Text] = []
        for text in texts:
            self._serve_late(text, journey)
            if text.served or text.key in leading or text.key in flights:
                continue
            flight = None if journey.control.no_store else self._flight_of(text, journey)
            if flight is None:
                leading[text.key] = text
                started.append(text)
            else:
                self._flights.hold(flight)
                flights[text.key] = flight
        if started:
            futures = self._engine.submit([text.given for text in started], journey.turn)
            for text, future in zip(started, futures, strict=True):
                flights[text.key] = flight = self._begin(text, future, journey)
                self._flights.hold(flight)

    def _serve_inferred(
        self,
        text: _Text,
        flights: dict[bytes, Flight[Any]],
        leading: dict[bytes, _Text],
        journey: _Journey,
    ) -> None:
        flight = flights[text.key]
        inferred = self._engine.read(flight.future.result(), text.given)
        follows = leading.get(text.key) is not text
        self._collapsed.inc(follows)
        entry = None if journey.control.no_store else self._hot.get(text.key)
        record = entry.record if entry else flight.record
        if record is None:
            record = self._record_of(text, inferred, journey)
        if inferred.may_keep:
            self._link(text)
        text.served = Served(record, "miss", entry, collapsed=follows, is_stored=flight.is_stored)

    def _serve_late(self, text: _Text, journey: _Journey) -> None:
        """Serve what another request has finished since the text was looked up."""
        if journey.control.reads:
            self._serve_hot(text, self._hot.get(text.key), journey)
            if text.served is None:
                pending = self._exact.pending(journey.namespace_id, text.key)
                self._serve_exact(text, pending, self._purges.moment, journey)
            if text.served is not None:
                self._lookups[text.served.outcome, "hit"].inc()

    def _flight_of(self, text: _Text, journey: _Journey) -> Flight[Any] | None:
        """Return the text's flight, unless it began before a purge of what it brings."""
        flight = self._flights.get(text.key)
        if flight is None:
            return None
        namespace_id = journey.namespace_id
        is_untouched = self._purges.is_untouched(namespace_id, text.key, flight.since)
        return flight if is_untouched else None

    def _begin(self, text: _Text, future: asyncio.Future[Any], journey: _Journey) -> Flight[Any]:
        if journey.control.no_store:
            return Flight(future)
        generation = self._purges.generation
        flight = self._flights.begin(text.key, future, self._purges.moment)
        # Added before anybody waits, so that the tiers have the vector before a waiter goes on.
        future.add_done_callback(lambda _: self._keep(text, flight, generation, journey))
        return flight

    def _keep(self, text: _Text, flight: Flight[Any], generation: int, journey: _Journey) -> None:
        """Put a fresh vector into the tiers, even if those who asked for it have left."""
        done = flight.future
        if done.cancelled() or done.exception() is not None:
            return
        inferred = self._engine.read(done.result(), text.given)
        if not inferred.may_keep:
            return
        flight.record = record = self._record_of(text, inferred, journey)
        self._hot.put(record, flight.since)
        flight.is_stored = self._writeback.put(
            Entry(
                key=text.key,
                partition=self._semantic.partition_of(journey.namespace_id),
                record=pack(record),
                expires_at=record.expires_at,
                tags=journey.control.tags,
                probe=text.lookup.probe,
                generation=generation,
            ),
            flight.since,
        )
        self._learn(text.lookup, inferred.vector, journey)

    def _learn(self, lookup: Lookup[EmbeddingRecord], vector: Vector, journey: _Journey) -> None:
        if lookup.neighbour is not None:
            served = np.frombuffer(lookup.neighbour.vector, "<f4")
            # An upstream's vectors may have other lengths than 1.
            lengths = float(np.linalg.norm(served) * np.linalg.norm(vector))
            similarity = float(np.dot(served, vector)) / lengths
            self._semantic.learn(journey.namespace_id, lookup.score, similarity)

    def _record_of(self, text: _Text, inferred: Inferred, journey: _Journey) -> EmbeddingRecord:
        created_at = self._now()
        ttl_s = self._lifetimes.choose(journey.namespace_id, journey.control.ttl_s)
        return EmbeddingRecord(
            namespace_id=journey.namespace_id,
            key=text.key,
            created_at=created_at,
            expires_at=created_at + ttl_s,
            tokens=inferred.tokens,
            vector=np.ascontiguousarray(inferred.vector, "<f4").tobytes(),
        )

    def _serve_hot(
        self, text: _Text, entry: HotEntry[EmbeddingRecord] | None, journey: _Journey
    ) -> None:
        if entry is not None and self._is_fresh(entry.record, journey.control):
            self._link(text)
            text.served = Served(entry.record, "hot", entry)

    def _serve_exact(
        self, text: _Text, record: EmbeddingRecord | None, since: int, journey: _Journey
    ) -> None:
        if record is not None and self._is_fresh(record, journey.control):
            entry = self._hot.put(record, since)
            self._link(text)
            text.served = Served(record, "exact", entry)

    def _link(self, text: _Text) -> None:
        if text.text_key is not None and text.key:
            self._hot.link_text(text.text_key, text.key)

    def _is_fresh(self, record: EmbeddingRecord, control: Control) -> bool:
        return control.max_age_s is None or self._now() - record.created_at <= control.max_age_s

    def _count(self, tier: str, texts: list[_Text], journey: _Journey) -> None:
        if journey.control.reads:
            misses = len(_unserved(texts))
            if misses:
                self._lookups[tier, "miss"].inc(misses)
            if misses < len(texts):
                self._lookups[tier, "hit"].inc(len(texts) - misses)


def key_of_text(tokenizer: Tokenizer, fingerprint: str, namespace_id: str, text: str) -> bytes:
    """Return the key [32 bytes] of a text's entry under a model."""
    (ids,) = tokenizer.encode([text])
    return KeyScope(namespace_id, _ROUTE, fingerprint).of_ids(ids)


def _least_tokens(given: str | list[int]) -> int:
    return len(given) // _CHARACTERS + 1 if isinstance(given, str) else len(given)


def _unserved(texts: list[_Text]) -> list[_Text]:
    return [text for text in texts if text.served is None]


async def _in_parts(texts: list[_Text]) -> AsyncIterator[list[_Text]]:
    """Yield the texts in parts, and let others have the event loop in between."""
    for start in range(0, len(texts), _PART):
        if start:
            await asyncio.sleep(0)
        yield texts[start : start + _PART]
