"""The semantic tier of one model's completions: what is near a question, and may it be served?

A neighbour has the same context, that is everything but the last user turn, and the same signature;
only the rest of the question may differ. Among the nearest few the best by the score that the
namespace's thresholds use is the neighbour. Whether it is served is earned from labels
(`thresholds.judged`), or said by an operator's own threshold, which promises nothing.
"""

from collections import OrderedDict
from typing import NamedTuple
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from cacheproxy.errors import ApiError
from cacheproxy.inference.tokenizer import Tokenizer
from cacheproxy.probes.probe import Probe
from cacheproxy.routes.chat.record import CompletionRecord
from cacheproxy.routes.dialects.request import UserTurn
from cacheproxy.stores.protocol import Partition
from cacheproxy.telemetry.metrics import Metrics
from cacheproxy.thresholds.judged.namespaces import JudgedNamespaces
from cacheproxy.thresholds.judged.question_pair import Rarity, features_of, take_apart
from cacheproxy.thresholds.judged.thresholds import CANDIDATES, Pick
from cacheproxy.tiers.guard import StoreGuard
from cacheproxy.tiers.reader import RecordReader

_QUARANTINED = 8_192
"""Keys of entries that were found to be wrong for other questions; some 600 kB."""


class Near(NamedTuple):
    """What was found for one question.

    Attributes:
        probe: float32 [d] unit vector under which its entry is to be indexed, or None.
        neighbour: the record of the neighbour, or None.
        score: the cosine of its question.
        pick: what the thresholds know it by, or None.
        is_hit: whether it may be served.
    """

    probe: NDArray[np.float32] | None = None
    neighbour: CompletionRecord | None = None
    score: float = 0.0
    pick: Pick | None = None
    is_hit: bool = False


class Likeness:
    """Lookups and quarantine for one model.

    Attributes:
        namespaces: the earned thresholds; None where an operator has set one.
    """

    def __init__(
        self,
        guard: StoreGuard,
        probe: Probe,
        tokenizer: Tokenizer,
        reader: RecordReader[CompletionRecord],
        rarity: Rarity,
        *,
        namespaces: JudgedNamespaces | None,
        threshold: float | None,
        fingerprint: str,
        min_tokens: int,
        model: str,
        metrics: Metrics,
    ) -> None:
        """Prepare.

        Args:
            guard, reader: the store's lookups, and its records.
            probe, tokenizer: make the vector of a question.
            rarity: of words.
            namespaces: the earned thresholds, or None.
            threshold: the operator's own cosine, or None.
            fingerprint: what an index belongs to.
            min_tokens: shorter questions are exact-only.
            model: the model's label in the metrics.
            metrics: counts.
        """
        self.namespaces = namespaces
        self._guard = guard
        self._probe = probe
        self._tokenizer = tokenizer
        self._reader = reader
        self._rarity = rarity
        self._threshold = threshold
        # Scores of different probes do not compare.
        self._fingerprint = f"{fingerprint}:{probe.name}"
        self._min_tokens = min_tokens
        self._scores = metrics.semantic_score.labels(model)
        self._quarantined: OrderedDict[bytes, None] = OrderedDict()

    def steer_by(self, namespaces: JudgedNamespaces | None, threshold: float | None) -> None:
        """Serve by other thresholds from now on; what was found to be wrong stays so."""
        self.namespaces = namespaces
        self._threshold = threshold

    def is_open(self, namespace_id: str) -> bool:
        """Return whether anything may be served in a namespace at the moment."""
        return self.namespaces is None or self.namespaces.of(namespace_id).is_open

    def partition_of(self, namespace_id: str, turn: UserTurn) -> Partition:
        """Return where a namespace's entries of a turn's context are indexed."""
        return Partition(namespace_id, self._fingerprint, turn.context)

    async def find(
        self, namespace_id: str, turn: UserTurn, key: bytes, *, spent_s: float = 0.0
    ) -> Near:
        """Return the neighbour of a question in its turn's context; nothing while that is unknown.

        `spent_s` is how long the request has waited for the store before.
        """
        probe = await self._probe_of(turn.question)
        if probe is None:
            return Near()
        partition = self.partition_of(namespace_id, turn)
        found = await self._guard.candidates(partition, probe, CANDIDATES, spent_s=spent_s)
        near: list[tuple[CompletionRecord, float]] = []
        for one in found:
            record = self._reader.read(one.record, namespace_id=namespace_id, key=one.key)
            # An older answer to this very question teaches nothing about neighbours.
            if record is not None and record.key != key and record.question:
                near.append((record, one.score))
        if not near:
            return Near(probe)
        self._scores.observe(near[0][1])
        if self.namespaces is None:
            record, score = near[0]
            return Near(probe, record, score, None, score >= (self._threshold or 2.0))
        thresholds = self.namespaces.of(namespace_id)
        asked = take_apart(turn.question, self._rarity)
        features = [
            features_of(asked, take_apart(record.question, self._rarity), score)
            for record, score in near
        ]
        pick = thresholds.rank(features, [_half_of(record.question) for record, _ in near])
        record, score = near[pick.index]
        return Near(probe, record, score, pick, thresholds.serve(pick))

    def quarantine(self, key: bytes) -> None:
        """Let no other question find the entry of a key."""
        self._quarantined[key] = None
        if len(self._quarantined) > _QUARANTINED:
            self._quarantined.popitem(last=False)

    def is_quarantined(self, key: bytes) -> bool:
        """Return whether a key is quarantined."""
        return key in self._quarantined

    async def _probe_of(self, question: str) -> NDArray[np.float32] | None:
        (ids,) = self._tokenizer.encode([question])
        if len(ids) < self._min_tokens or self._tokenizer.is_full(ids):
            return None
        try:
            (probe,) = await self._probe.encode([ids])
        except ApiError:
            return None  # the encoder is overloaded, and a lookup is not worth waiting for it
        vector: NDArray[np.float32] = probe
        return vector if vector.any() else None


def _half_of(question: str) -> int:
    """Return which half of the labels a neighbour's are in: the same in every namespace."""
    return crc32(question.encode()) & 1
