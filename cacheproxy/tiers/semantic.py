"""The semantic tier: the nearest entry in the caller's partition, if the controller vouches for it.

A text is probed only if the controller is active and the text has enough tokens: very short texts
differ in meaning by a single token, so they are exact-only. A served record is checked to be of
the caller's namespace and model, whatever the store's index said.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cacheproxy.errors import RecordError
from cacheproxy.metrics import Metrics
from cacheproxy.probes.probe import Probe
from cacheproxy.records import EmbeddingRecord, unpack
from cacheproxy.stores.store import Neighbour, Partition
from cacheproxy.thresholds.controller import Controller
from cacheproxy.tiers.guard import StoreGuard


@dataclass(frozen=True, slots=True)
class Lookup:
    """What the tier found for one text.

    Attributes:
        probe: float32 [d] unit vector under which the text's entry is to be indexed, or None.
        neighbour: the nearest entry's record, or None.
        score: the neighbour's score; meaningless without one.
        is_hit: whether the neighbour may be served.
    """

    probe: NDArray[np.float32] | None = None
    neighbour: EmbeddingRecord | None = None
    score: float = 0.0
    is_hit: bool = False


class SemanticTier:
    """Nearest-neighbour lookups for one model's embeddings."""

    def __init__(
        self,
        store: StoreGuard,
        probe: Probe,
        controller: Controller,
        *,
        fingerprint: str,
        dimensions: int,
        min_tokens: int,
        model: str,
        metrics: Metrics,
    ) -> None:
        self._store = store
        self._probe = probe
        self._controller = controller
        self._fingerprint = fingerprint
        self._dimensions = dimensions
        self._min_tokens = min_tokens
        self._scores = metrics.semantic_score.labels(model)
        self._record_errors = metrics.record_errors

    @property
    def is_active(self) -> bool:
        """Whether lookups are worth their cost."""
        return self._controller.is_active

    async def find(
        self,
        namespace_id: str,
        texts: Sequence[Sequence[int]],
        *,
        min_similarity: float | None,
        lookup: bool = True,
    ) -> list[Lookup]:
        """Return what is found for each text's token ids; one store call at most.

        Without `lookup` the texts are only probed, so that their entries can be indexed.
        """
        found = [Lookup()] * len(texts)
        if not self._controller.is_active:
            return found
        probed = [i for i, ids in enumerate(texts) if len(ids) >= self._min_tokens]
        if not probed:
            return found
        probes = self._probe.encode([texts[i] for i in probed])
        neighbours: list[Neighbour | None] = [None] * len(probed)
        if lookup:
            neighbours = await self._store.nearest(
                Partition(namespace_id, self._fingerprint), probes
            )
        threshold = self._controller.threshold(namespace_id, min_similarity)
        for i, probe, neighbour in zip(probed, probes, neighbours, strict=True):
            if not probe.any():
                continue  # only special tokens: nothing that a neighbour could share
            record = None if neighbour is None else self._decode(namespace_id, neighbour)
            if neighbour is None or record is None:
                found[i] = Lookup(probe=probe)
                continue
            self._scores.observe(neighbour.score)
            is_hit = threshold is not None and neighbour.score >= threshold
            found[i] = Lookup(probe, record, neighbour.score, is_hit)
        return found

    def learn(self, namespace_id: str, lookup: Lookup, true_vector: NDArray[np.float32]) -> None:
        """Hand the controller what a miss taught: how right its neighbour would have been."""
        if lookup.neighbour is None:
            return
        served = np.frombuffer(lookup.neighbour.vector, "<f4")
        similarity = float(np.dot(served, true_vector))
        self._controller.observe(namespace_id, lookup.score, similarity)

    def _decode(self, namespace_id: str, neighbour: Neighbour) -> EmbeddingRecord | None:
        try:
            record = unpack(
                neighbour.record, namespace_id=namespace_id, dimensions=self._dimensions
            )
        except RecordError:
            self._record_errors.inc()
            return None
        if record.key != neighbour.key:
            self._record_errors.inc()
            return None
        return record
