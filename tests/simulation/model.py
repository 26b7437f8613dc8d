"""The model: what may be served, and what must have become of everything in the end.

It sees every answer, every purge that was acknowledged, every verdict and every label, and knows
which inference made which vector. It shares no code with the product. Each rule has a name, by
which it can be switched off: a test shows that each of them is needed.
"""

import math
import struct
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from cacheproxy.errors import ApiError, NotCached, Overloaded, Unavailable
from tests.simulation.machine import Asker, Inference, Machine
from tests.simulation.network import Network
from tests.simulation.world import EPOCH_S, World

HEARD_S = 0.1
"""Within this time every server has heard of a purge, if it hears at all (docs/stores.md)."""

UNHEARD_S = 12.0
"""After a disturbance, within this time: 3 s until a silent connection is noticed, the longest
pause before the next attempt, and the attempts themselves."""

_RIGHT = 0.9
"""The least similarity that any request may ask for here."""

_LEDGER = struct.Struct("<4sBBHd")

RULES = (
    "real",  # an answer is the result of an inference, unchanged
    "key",  # an exact answer is of the very text that was asked
    "tenant",  # an answer was made for the caller's namespace
    "no-store",  # what was asked with no-store answers nobody else, and is in no store
    "purge",  # nothing is served after an acknowledged purge
    "ttl",  # nothing is served after its time
    "max-age",  # nothing is served that is older than the request allows
    "complete",  # only whole answers are kept
    "label",  # a label says what the judge said
    "certificate",  # no semantic hit without enough right labels since the last refutation
    "once",  # no label is counted twice
    "refuted",  # refuted evidence does not come back
    "stored",  # what was acknowledged as stored is stored
    "counted",  # a purge tells how many entries it removed
    "check",  # a background check that has begun ends in a label
    "settled",  # once all is well again, nothing waits for ever
    "answered",  # every request ends, with an answer or an error that says what is overloaded
    "unexpected",  # nothing raises what nobody expects
)


@dataclass(slots=True, eq=False)
class Purge:
    """A purge; until it is acknowledged it may take effect at any time."""

    server: Any
    namespace: Any
    tag: str | None
    subject: Any
    """What key the purge is of: the ids of a text, or a question; None: not of a key."""
    began: float
    acked: float = math.inf

    def covers(self, namespace: Any, subject: Any, tags: tuple[str, ...]) -> bool:
        """Return whether it names an entry."""
        if self.namespace != namespace:
            return False
        if self.subject is not None:
            return bool(self.subject == subject)
        return self.tag is None or self.tag in tags


@dataclass(slots=True)
class Evidence:
    """What the model has seen of a namespace's evidence, over all servers."""

    labels: int = 0
    right: int = 0
    epoch_stored: int = 0
    refuted: dict[Any, int] = field(default_factory=dict)
    """By server: right labels at the last refutation there."""
    epochs: dict[Any, int] = field(default_factory=dict)
    """By server: how often the evidence that it uses was refuted."""


@dataclass(slots=True)
class Kept:
    """An entry that a client was told is stored."""

    server: Any
    one: Inference


class Model:
    """The judge of one world.

    Attributes:
        broken: rule and message of each rule that was broken.
        seen: how often what was seen.
    """

    def __init__(
        self, world: World, machine: Machine, network: Network, *, without: str | None = None
    ) -> None:
        """Judge by all rules but one."""
        self.world, self.machine, self.network = world, machine, network
        self.without = without
        self.broken: list[tuple[str, str]] = []
        self.seen: Counter[str] = Counter()
        self.purges: list[Purge] = []
        self.evidence: dict[str, Evidence] = {}
        self.kept: dict[tuple[Any, tuple[int, ...]], Kept] = {}
        self.evicted: set[tuple[Any, tuple[int, ...]]] = set()
        self.offsets_s = [0.0]
        self.default_ttl_s = 3600.0
        self.least_labels = 0
        self.evidence_names: dict[bytes, str] = {}
        network.peer.on_write = self.wrote

    def breaks(self, rule: str, message: str) -> None:
        """Take note that a rule was broken."""
        if rule != self.without:
            self.broken.append((rule, f"{self.world.now:9.4f} {message}"))

    @property
    def clock_slack_s(self) -> float:
        """How far clocks have disagreed so far."""
        return max(self.offsets_s) - min(self.offsets_s)

    # Requests.

    def answered(self, server: Any, request: Any, result: Any, started: float) -> None:
        """Judge the answer of an items request."""
        for ids, served in zip(request.ids, result.served, strict=True):
            self.seen[served.outcome] += 1
            one = self.machine.inferences.get(served.record.vector)
            if one is None:
                self.breaks("real", f"{server.name} served a vector that no inference gave")
                continue
            if self.world.trace is not None:
                self.world.trace.append(
                    f"{self.world.now:9.4f} {server.name} request {request.number}"
                    f" {served.outcome} inference {one.serial}"
                )
            self._judge(server, request, ids, served, one, started)

    def _judge(
        self, server: Any, request: Any, ids: Any, served: Any, one: Inference, started: float
    ) -> None:
        about = (
            f"{server.name} request {request.number} ({served.outcome}): inference {one.serial}"
            f" of {one.began:.4f}"
        )
        by = one.by or Asker(0, None)
        if served.outcome != "semantic" and one.ids != ids:
            self.breaks("key", f"{about} is of another text")
        if by.namespace != request.namespace or served.record.namespace_id != request.namespace.id:
            self.breaks("tenant", f"{about} was made for {by.namespace}")
        if by.no_store and by.request != request.number:
            self.breaks("no-store", f"{about} was not to be stored")
        self.judge_purges(server, request.namespace, one.ids, one, by, started, about)
        record = served.record
        made = record.created_at - EPOCH_S - max(self.offsets_s)
        age_s = started - made - self.clock_slack_s - 0.002
        ttl_s = self.default_ttl_s if by.ttl_s is None else by.ttl_s
        if served.outcome != "miss" and age_s > ttl_s:
            self.breaks("ttl", f"{about} was {age_s - ttl_s:.3f} s past its time")
        most_s = request.control.max_age_s
        if served.outcome != "miss" and most_s is not None and age_s > most_s:
            self.breaks("max-age", f"{about} was {age_s - most_s:.3f} s too old")
        if served.outcome == "miss" and served.is_stored and one.by is not None:
            self.kept[request.namespace, ids] = Kept(server, one)

    def judge_purges(
        self,
        server: Any,
        namespace: Any,
        subject: Any,
        one: Any,
        by: Asker,
        started: float,
        about: str,
    ) -> None:
        """Judge whether what is served was purged before the request came."""
        disturbed = self.network.disturbed_at.get(server.loop, -math.inf)
        for purge in self.purges:
            if one.began >= purge.began or not purge.covers(namespace, subject, by.tags):
                continue
            heard = purge.acked
            if server is not purge.server:
                heard += HEARD_S
                if self.network.is_disturbed(server.loop):
                    continue
                if disturbed > purge.began - UNHEARD_S:
                    heard = max(heard, disturbed + UNHEARD_S)
            if started > heard:
                self.breaks("purge", f"{about} was purged at {purge.acked:.4f}")

    def failed(self, server: Any, request: Any, error: BaseException) -> None:
        """Judge a request that ended with an error."""
        self.seen[type(error).__name__] += 1
        if isinstance(error, NotCached) and request.control.only_if_cached:
            return
        if isinstance(error, Overloaded | Unavailable):
            return
        if isinstance(error, ApiError) and (error.code or "") == "inference_failed":
            return
        self.breaks("answered", f"{server.name} request {request.number} failed: {error!r}")

    # Purges.

    def purged(self, purge: Purge, removed: int, gone: int) -> None:
        """Judge a purge that was acknowledged; `gone` entries at least are no longer there."""
        self.seen["purged"] += 1
        purge.acked = self.world.now
        # Of purges at the same time, each counts what it removed itself.
        alone = all(one is purge or one.acked < purge.began for one in self.purges)
        if alone and removed < gone:
            self.breaks("counted", f"a purge of {gone} entries counted {removed}")

    # Evidence.

    def watch(self, server: Any, thresholds: Any) -> None:
        """See all verdicts and labels of a server."""
        judge, observe = thresholds.judge, thresholds.observe
        least = math.log(1 - thresholds._promise.confidence)
        self.least_labels = math.floor(least / math.log(1 - thresholds._promise.max_error))

        def judged(namespace_id: str, score: float, min_similarity: float | None) -> Any:
            verdict = judge(namespace_id, score, min_similarity)
            self._judge_epoch(server, namespace_id, thresholds._of(namespace_id).earned)
            if verdict.is_hit:
                evidence = self._evidence(namespace_id)
                since = evidence.refuted.get(server, 0)
                right = evidence.right - since
                if right < self.least_labels:
                    self.breaks("certificate", f"{server.name} hit on {right} right labels")
            return verdict

        def observed(namespace_id: str, score: float, similarity: float) -> None:
            evidence = self._evidence(namespace_id)
            evidence.labels += 1
            evidence.right += similarity >= _RIGHT
            self.seen["label"] += 1
            earned = thresholds._of(namespace_id).earned
            before = earned.alarms["refuted"]
            observe(namespace_id, score, similarity)
            if earned.alarms["refuted"] > before:
                self.seen["refuted"] += 1
                evidence.refuted[server] = evidence.right

        thresholds.judge, thresholds.observe = judged, observed

    def _judge_epoch(self, server: Any, namespace_id: str, earned: Any) -> None:
        """Judge that a server does not return to evidence that it knows to be refuted."""
        epochs, epoch = self._evidence(namespace_id).epochs, earned._ledger.epoch
        if epoch < epochs.get(server, 0):
            self.breaks("refuted", f"{server.name} returned from epoch {epochs[server]} to {epoch}")
        epochs[server] = epoch

    def _evidence(self, namespace_id: str) -> Evidence:
        return self.evidence.setdefault(namespace_id, Evidence())

    def wrote(self, name: bytes, value: Any) -> None:
        """Judge what is written to the store."""
        namespace_id = self.evidence_names.get(name)
        if namespace_id is not None:
            self.shared(namespace_id, value)
        elif isinstance(value, dict):
            one = self.machine.of_stored(value)
            if one is not None and one.by is not None and one.by.no_store:
                self.breaks("no-store", f"inference {one.serial} was stored")

    def shared(self, namespace_id: str, packed: bytes) -> None:
        """Judge evidence that is written for all servers."""
        self.seen["evidence written"] += 1
        evidence = self._evidence(namespace_id)
        if packed.startswith(b"CPSE"):
            packed = packed[5 + 12 * packed[4] :]
        _, _, kinds, bands, epoch = _LEDGER.unpack_from(packed)
        start = _LEDGER.size + 4 * (kinds + bands)
        labels = sum(struct.unpack_from(f"<{bands}f", packed, start))
        if labels > evidence.labels + 0.01:
            self.breaks("once", f"{evidence.labels} labels became {labels:.2f}")
        if epoch < evidence.epoch_stored:
            self.breaks("refuted", f"epoch {evidence.epoch_stored} became {epoch:.0f}")
        evidence.epoch_stored = int(epoch)

    def forgot(self, name: bytes) -> None:
        """Take note that Redis has evicted a key."""
        namespace_id = self.evidence_names.get(name)
        if namespace_id is not None:
            self._evidence(namespace_id).epoch_stored = 0

    # The end.

    def settled(self, server: Any) -> None:
        """Judge a server for which all has been well for a while, and nothing was asked."""
        waiting = len(server.parts.writeback._pending)
        if waiting:
            self.breaks("settled", f"{server.name}: {waiting} entries wait to be written")
        if checks := len(server.embeddings.spare_work):
            self.breaks("settled", f"{server.name}: {checks} background checks wait")
        for task in server.loop.tasks:
            if task.done() and not task.cancelled() and task._log_traceback:
                self.breaks("unexpected", f"{server.name}: {task.get_name()}: {task.exception()!r}")
        if server.requests:
            self.breaks("answered", f"{server.name}: {len(server.requests)} requests wait")

    def stopped(self, stored: set[Any], at: float) -> None:
        """Judge what is stored, now that all servers have stopped."""
        expires: dict[Any, float] = {}
        tags: dict[Any, tuple[str, ...]] = {}
        for one in self.machine.inferences.values():
            if one.by is not None and not one.by.no_store:
                ttl_s = self.default_ttl_s if one.by.ttl_s is None else one.by.ttl_s
                about = one.by.namespace, one.ids
                expires[about] = min(one.ended + 0.9 * ttl_s, expires.get(about, math.inf))
                tags[about] = (*tags.get(about, ()), *one.by.tags)
        for (namespace, ids), kept in self.kept.items():
            one = kept.one
            if kept.server.killed_at is not None or kept.server.stopped_in_trouble:
                continue
            # The entry that was written last may be one with a shorter life, or with other tags.
            if expires.get((namespace, ids), 0.0) - self.clock_slack_s < at:
                continue
            if (namespace, ids) in self.evicted or one.by is None:
                continue
            # What began before a server has heard that floors began again is not stored.
            if self.network.peer.floors_began_again_at > one.began - UNHEARD_S:
                continue
            if any(
                purge.covers(namespace, ids, tags[namespace, ids])
                and purge.acked > one.began - UNHEARD_S
                for purge in self.purges
            ):
                continue
            if (namespace.id, ids) not in stored:
                self.breaks("stored", f"inference {one.serial} was acknowledged and is not stored")

    def finish(self) -> None:
        """Take over what was noticed elsewhere."""
        for kind, message in self.world.faults:
            if kind != self.without:
                self.broken.append((kind, message))
