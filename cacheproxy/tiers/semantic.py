"""The semantic tier: the nearest entry in the caller's partition, if the controller accepts it.

A text is probed only if the controller is active and the text has enough tokens: very short texts
differ in meaning by a single token, so they are exact-only. Before a record is served, its
namespace and model are verified independently of the store's index.

Some hits are checked in the background: those that the controller samples, and, where inference is
cheap, every text that hits a second time, which then gets an entry of its own. A wrong answer is
thus not served for long.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from cacheproxy.errors import ApiError
from cacheproxy.probes.probe import Probe
from cacheproxy.records import Record
from cacheproxy.stores.protocol import Neighbour, Partition
from cacheproxy.telemetry.metrics import Metrics
from cacheproxy.thresholds.controller import Controller
from cacheproxy.thresholds.past import WrongHits
from cacheproxy.tiers.guard import StoreGuard
from cacheproxy.tiers.reader import RecordReader

R = TypeVar("R", bound=Record)
Vector = NDArray[np.float32]

_SERVED_TEXTS = 8_192
"""Number of recent hits remembered to recognise a second hit: about a megabyte."""


class Lookup(NamedTuple, Generic[R]):
    """What the tier found for one text.

    Attributes:
        probe: float32 [d] unit vector under which the text's entry is to be indexed, or None.
        neighbour: the nearest entry's record, or None.
        score: the neighbour's score; meaningless without one.
        is_hit: whether the neighbour may be served.
        check: whether the true vector is to be computed in the background to check the hit.
    """

    probe: Vector | None = None
    neighbour: R | None = None
    score: float = 0.0
    is_hit: bool = False
    check: bool = False


class SemanticTier(Generic[R]):
    """Nearest-neighbour lookups among one model's entries."""

    def __init__(
        self,
        store: StoreGuard,
        probe: Probe,
        controller: Controller,
        *,
        reader: RecordReader[R],
        fingerprint: str,
        min_tokens: int,
        checks_repeats: bool = True,
        model: str,
        metrics: Metrics,
        min_similarity: float = 0.0,
        wrong_hits: WrongHits | None = None,
    ) -> None:
        """Prepare; hits below `min_similarity` are noted among the `wrong_hits`."""
        self._model, self._min_similarity = model, min_similarity
        self._wrong_hits = wrong_hits or WrongHits()
        self._store = store
        self._probe = probe
        self._controller = controller
        self._reader = reader
        # Scores of different probes are not comparable, even for the same model.
        self._fingerprint = f"{fingerprint}:{probe.name}"
        self._min_tokens = min_tokens
        self._checks_repeats = checks_repeats
        self._scores = metrics.semantic_score.labels(model)
        self._served: OrderedDict[bytes, None] = OrderedDict()

    def steer_by(self, controller: Controller) -> None:
        """Have another controller decide from now on."""
        self._controller = controller

    def is_active(self, namespace_id: str, texts: int, *, is_idle: Callable[[], bool]) -> bool:
        """Return whether this many texts are to be looked up, or at least indexed.

        `is_idle` returns whether inference has spare capacity at the moment.
        """
        return self._controller.is_active(namespace_id, texts, is_idle=is_idle)

    def may_hit(self, namespace_id: str) -> bool:
        """Return whether a neighbour might be served at the moment."""
        return self._controller.is_open(namespace_id)

    def partition_of(self, namespace_id: str, context: str = "") -> Partition:
        """Return where a namespace's entries are indexed."""
        return Partition(namespace_id, self._fingerprint, context)

    async def find(
        self,
        partition: Partition,
        probes: Sequence[Vector | None],
        keys: Sequence[bytes],
        *,
        min_similarity: float | None,
        can_check: bool = True,
        spent_s: float = 0.0,
    ) -> list[Lookup[R]]:
        """Return what is found for each text's probe; one store call at most.

        If the queue of checks is full, a hit that must be checked becomes a miss. `spent_s` is how
        long the request has already waited for the store.
        """
        found: list[Lookup[R]] = [Lookup(probe) for probe in probes]
        asked = [(i, probe) for i, probe in enumerate(probes) if probe is not None]
        if not asked:
            return found
        neighbours = await self._store.nearest(
            partition,
            np.stack([probe for _, probe in asked]),
            spent_s=spent_s,
        )
        for (i, probe), neighbour in zip(asked, neighbours, strict=True):
            if neighbour is not None:
                found[i] = self._judge(
                    partition.namespace_id, keys[i], probe, neighbour, min_similarity, can_check
                )
        return found

    async def probe(self, texts: Sequence[Sequence[int]]) -> list[Vector | None]:
        """Return each text's probe (float32 [d]), or None where the tier is not used.

        It is not used for texts that are too short, for texts without a usable probe, and for any
        text while the encoder is overloaded: a lookup must not fail a request.
        """
        long_enough = [ids for ids in texts if len(ids) >= self._min_tokens]
        if not long_enough:
            return [None] * len(texts)
        try:
            probes = iter(await self._probe.encode(long_enough))
        except ApiError:  # counted where it was refused
            return [None] * len(texts)
        found = (next(probes) if len(ids) >= self._min_tokens else None for ids in texts)
        return [probe if probe is not None and probe.any() else None for probe in found]

    def _judge(
        self,
        namespace_id: str,
        key: bytes,
        probe: Vector,
        neighbour: Neighbour,
        min_similarity: float | None,
        can_check: bool,
    ) -> Lookup[R]:
        record = self._reader.read(neighbour.record, namespace_id=namespace_id, key=neighbour.key)
        if record is None:
            return Lookup(probe)
        self._scores.observe(neighbour.score)
        is_hit, check = self._controller.judge(namespace_id, neighbour.score, min_similarity)
        if is_hit:
            if self._checks_repeats:
                check |= key in self._served
                self._remember(key)
            is_hit = can_check or not check
        return Lookup(probe, record, neighbour.score, is_hit, check and is_hit)

    def _remember(self, key: bytes) -> None:
        self._served[key] = None
        self._served.move_to_end(key)
        if len(self._served) > _SERVED_TEXTS:
            self._served.popitem(last=False)

    def looked_up(self, namespace_id: str, seconds: float, texts: int, hits: int) -> None:
        """Report to the controller the time of probes and lookups, and the texts served."""
        self._controller.looked_up(namespace_id, seconds, texts, hits)

    def inferred(self, namespace_id: str, seconds: float, texts: int) -> None:
        """Report to the controller the time of inference, which hits save."""
        self._controller.inferred(namespace_id, seconds, texts)

    def learn(self, namespace_id: str, lookup: Lookup[R], similarity: float) -> None:
        """Report to the controller how correct the neighbour was, or would have been."""
        self._controller.observe(namespace_id, lookup.score, similarity)
        if lookup.is_hit and lookup.neighbour is not None and similarity < self._min_similarity:
            self._wrong_hits.add(
                *(self._model, namespace_id, lookup.neighbour.key),
                score=lookup.score,
                found_by="check",
                at=time.time(),
            )
