"""What operators ask of every worker: its figures, its last requests, wrong hits, what it holds.

A worker that is asked by an operator asks all of them over the supervisor, itself included. A
worker that does not answer within a second is missing.
"""

import os
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Annotated, Any, Literal, cast

import msgspec
from msgspec import Meta

from cacheproxy.admin.facts import EntryFacts, facts_of, read_facts
from cacheproxy.admin.merged_thresholds import merge_thresholds
from cacheproxy.admin.report import Thresholds
from cacheproxy.errors import Unavailable
from cacheproxy.telemetry.history import FIGURES, Figures, read_figures
from cacheproxy.telemetry.merged import take_snapshot
from cacheproxy.telemetry.metrics import Metrics
from cacheproxy.telemetry.tail import Tail, TailedRequest
from cacheproxy.thresholds.past import WrongHit, WrongHits
from cacheproxy.tiers.hot import HotTier
from cacheproxy.tiers.writeback import WriteBack

_REQUESTS, _WRONG_HITS = 200, 200


class WorkerFigures(msgspec.Struct):
    """One worker, which is one process."""

    pid: int
    started_at: Annotated[float, Meta(description="Unix time, seconds.")]
    purge_generation: Annotated[int, Meta(description="Number of the newest purge that it knows.")]
    figures: Annotated[Figures, Meta(description="As in the samples, of this worker alone.")]


class Workers(msgspec.Struct):
    """The workers that answered, the oldest first."""

    workers: list[WorkerFigures]


class TailedRequests(msgspec.Struct):
    """The last requests of all workers, the latest first: a sample, see `docs/operations.md`."""

    requests: list[TailedRequest]


class LatestWrongHits(msgspec.Struct):
    """The last semantic hits that all workers found to be wrong, the latest first."""

    wrong_hits: list[WrongHit]


class HeldEntry(msgspec.Struct):
    """An entry in a worker's memory: in its hot tier, or waiting to be stored."""

    key: bytes
    is_hot: bool
    is_waiting: bool
    facts: EntryFacts


class Inquiry(msgspec.Struct):
    """A question to a worker; keys and namespace name the entries that it is about."""

    what: Literal["figures", "requests", "wrong_hits", "held", "waiting", "thresholds"]
    namespace_id: str = ""
    keys: list[bytes] = []


class Said(msgspec.Struct, omit_defaults=True):
    """A worker's answer."""

    pid: int
    figures: WorkerFigures | None = None
    requests: list[TailedRequest] = []
    wrong_hits: list[WrongHit] = []
    held: list[HeldEntry] = []
    waiting: int = 0
    thresholds: dict[str, Any] | None = None


class Respondent:
    """Answers for one worker; belongs to its event loop."""

    def __init__(
        self,
        metrics: Metrics,
        *,
        tail: Tail,
        wrong_hits: WrongHits,
        hot_tiers: Sequence[HotTier[Any]],
        writeback: WriteBack,
        generation: Callable[[], int],
        thresholds: Callable[[], Thresholds],
    ) -> None:
        """Prepare.

        Args:
            metrics: of this process, and so is all else.
            tail: the last requests.
            wrong_hits: the last wrong hits.
            hot_tiers: where entries may be held.
            writeback: where entries wait to be stored.
            generation: returns the number of the newest purge that is known.
            thresholds: returns the state of the semantic tier.
        """
        self._thresholds = thresholds
        self._pid, self._started_at = os.getpid(), time.time()
        self._metrics = metrics
        self._tail = tail
        self._wrong_hits = wrong_hits
        self._hot_tiers = hot_tiers
        self._writeback = writeback
        self._generation = generation
        self._inquiries = msgspec.msgpack.Decoder(Inquiry)

    def answer(self, question: bytes) -> bytes:
        """Return a packed `Said` for a packed `Inquiry`."""
        inquiry, said = self._inquiries.decode(question), Said(self._pid)
        match inquiry.what:
            case "figures":
                said.figures = self._figures()
            case "requests":
                said.requests = self._tail.last()
            case "wrong_hits":
                said.wrong_hits = self._wrong_hits.last()
            case "thresholds":
                said.thresholds = cast(dict[str, Any], self._thresholds())
            case "held":
                said.held = list(self._held(inquiry))
            case "waiting":
                said.waiting = self._writeback.waiting(inquiry.namespace_id, inquiry.keys)
        return msgspec.msgpack.encode(said)

    def _figures(self) -> WorkerFigures:
        families = take_snapshot(
            self._metrics.registry.restricted_registry(FIGURES), self._metrics.merges
        )
        figures = read_figures(families, time.time())
        return WorkerFigures(self._pid, self._started_at, self._generation(), figures)

    def _held(self, inquiry: Inquiry) -> Iterator[HeldEntry]:
        for key in inquiry.keys:
            data, facts = self._writeback.get(key), None
            if data is not None:
                facts = read_facts(data, namespace_id=inquiry.namespace_id, key=key)
            is_waiting, is_hot = facts is not None, False
            for hot in self._hot_tiers:
                entry = hot.get(key)
                if entry is not None and entry.record.namespace_id == inquiry.namespace_id:
                    is_hot, facts = True, facts_of(entry.record)
            if facts is not None:
                yield HeldEntry(key, is_hot, is_waiting, facts)


_SAID = msgspec.msgpack.Decoder(Said)


class AllWorkers:
    """Asks all workers."""

    def __init__(self, ask_all: Callable[[bytes], Awaitable[list[bytes]]]) -> None:
        """Prepare; `ask_all` returns the answers of those that answer in time."""
        self._ask_all = ask_all

    async def ask(self, inquiry: Inquiry) -> list[Said]:
        """Return what they say.

        Raises:
            Unavailable: the supervisor does not answer.
        """
        answers = await self._ask_all(msgspec.msgpack.encode(inquiry))
        return sorted(map(_SAID.decode, answers), key=lambda said: said.pid)

    async def figures(self) -> Workers:
        """Return each worker's figures."""
        told = [said.figures for said in await self.ask(Inquiry("figures")) if said.figures]
        return Workers(sorted(told, key=lambda one: one.started_at))

    async def thresholds(self) -> dict[str, Any]:
        """Return the state of the semantic tier, in the form of `Thresholds`.

        Raises:
            Unavailable: no worker answered.
        """
        told = [said.thresholds for said in await self.ask(Inquiry("thresholds"))]
        if known := [one for one in told if one is not None]:
            return merge_thresholds(known)
        raise Unavailable("no worker answered in time")

    async def requests(self) -> TailedRequests:
        """Return the last requests."""
        said = await self.ask(Inquiry("requests"))
        requests = [request for one in said for request in one.requests]
        return TailedRequests(sorted(requests, key=lambda one: -one.at)[:_REQUESTS])

    async def wrong_hits(self) -> LatestWrongHits:
        """Return the last wrong hits."""
        said = await self.ask(Inquiry("wrong_hits"))
        hits = [hit for one in said for hit in one.wrong_hits]
        return LatestWrongHits(sorted(hits, key=lambda one: -one.at)[:_WRONG_HITS])
