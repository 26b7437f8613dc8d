"""Replays requests past the tiers, in order, under one policy.

Texts of equal token ids are one text. A text that is stored is an exact hit; another looks its
nearest stored neighbour up, and the policy decides. What is inferred, on the path or to check a
hit, is stored. Nearest is exact here, so that a replay is the same every time.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cacheproxy.evaluation.policies import Policy

EXACT, MISS, SEMANTIC = 0, 1, 2

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Traffic:
    """Requests over unique texts.

    Attributes:
        requests: int64 [requests], each the number of its text.
        vectors: float32 [texts, dim] unit rows, the true ones.
        probes: float32 [texts, d] unit rows.
        is_long: bool [texts], whether the text has enough tokens to take part.
    """

    requests: NDArray[np.int64]
    vectors: Floats
    probes: Floats
    is_long: NDArray[np.bool_]


@dataclass
class Replay:
    """What a policy did.

    Attributes:
        policy: its name.
        outcomes: int8 [requests], EXACT, MISS or SEMANTIC.
        is_wrong: bool [requests], semantic hits whose similarity is below what was asked.
        scores, similarities: of every lookup that found a neighbour, in order.
        checks: hits that were checked.
        thresholds: (request, lowest score served or None), whenever it changed.
    """

    policy: str
    outcomes: NDArray[np.int8]
    is_wrong: NDArray[np.bool_]
    scores: list[float] = field(default_factory=list)
    similarities: list[float] = field(default_factory=list)
    checks: int = 0
    thresholds: list[tuple[int, float | None]] = field(default_factory=list)

    @property
    def hits(self) -> int:
        """Semantic hits."""
        return int((self.outcomes == SEMANTIC).sum())

    @property
    def wrong(self) -> int:
        """Wrong ones among them."""
        return int(self.is_wrong.sum())

    @property
    def error(self) -> float:
        """Wrong given hit; 0 without hits."""
        return self.wrong / self.hits if self.hits else 0.0

    @property
    def spared(self) -> int:
        """Requests that did not wait for inference."""
        return int((self.outcomes != MISS).sum())


class _Stored:
    """Probes of stored texts, found by a product with all of them."""

    def __init__(self, probes: Floats) -> None:
        self._all = probes
        self._probes = np.empty((1_024, probes.shape[1]), np.float32)
        self._texts: list[int] = []

    def add(self, text: int) -> None:
        if len(self._texts) == len(self._probes):
            self._probes = np.concatenate([self._probes, np.empty_like(self._probes)])
        self._probes[len(self._texts)] = self._all[text]
        self._texts.append(text)

    def nearest(self, text: int) -> tuple[int, float] | None:
        if not self._texts:
            return None
        scores = self._probes[: len(self._texts)] @ self._all[text]
        at = int(scores.argmax())
        return self._texts[at], float(scores[at])


def replay(
    traffic: Traffic,
    policy: Policy,
    min_similarity: float,
    progress: Callable[[Sequence[int]], Sequence[int]] = lambda requests: requests,
) -> Replay:
    """Return what the policy does with the traffic; `progress` wraps the loop over requests."""
    requests = traffic.requests.tolist()
    result = Replay(
        policy.name, np.zeros(len(requests), np.int8), np.zeros(len(requests), np.bool_)
    )
    stored = _Stored(traffic.probes)
    known = np.zeros(len(traffic.vectors), np.bool_)
    served: set[int] = set()

    def store(text: int) -> None:
        known[text] = True
        if traffic.is_long[text]:
            stored.add(text)

    shown: float | None = None
    for number, text in enumerate(progress(requests)):
        if known[text]:
            continue
        found = stored.nearest(text) if traffic.is_long[text] else None
        if found is None:
            result.outcomes[number] = MISS
            store(text)
            continue
        entry, score = found
        similarity = float(traffic.vectors[entry] @ traffic.vectors[text])
        result.scores.append(score)
        result.similarities.append(similarity)
        is_hit, check = policy.judge(entry, score)
        if is_hit:
            result.outcomes[number] = SEMANTIC
            result.is_wrong[number] = similarity < min_similarity
            check |= policy.checks_seconds and text in served
            served.add(text)
            result.checks += check
        else:
            result.outcomes[number] = MISS
        if check or not is_hit:
            policy.observe(entry, score, similarity)
            store(text)
        if policy.threshold != shown:
            shown = policy.threshold
            result.thresholds.append((number, shown))
    return result
