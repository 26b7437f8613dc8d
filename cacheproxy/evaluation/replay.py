"""Replays requests through the tiers, in order, under one policy.

Texts with equal token ids are one text. A stored text is an exact hit; for any other, the nearest
stored neighbour is looked up and the policy decides. Every inferred text, on a miss or to check a
hit, is stored. The neighbour search is exact, so that a replay is deterministic.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cacheproxy.evaluation.policies import Policy

EXACT, MISS, SEMANTIC = 0, 1, 2

_NEAR = 64
_BLOCK = 512
_NONE = -2.0
"""The score of a text without a neighbour."""

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Traffic:
    """Requests over unique texts.

    Attributes:
        requests: int64 [requests], each the number of its text.
        vectors: float32 [texts, dim] unit rows, the true ones.
        probes: float32 [texts, d] unit rows.
        is_long: bool [texts], whether the text has enough tokens to take part.
        differ: whether two texts, by their numbers, are labelled as different in meaning.
        contexts: int64 [texts], equal for possible neighbours; None if all texts may be neighbours.
    """

    requests: NDArray[np.int64]
    vectors: Floats
    probes: Floats
    is_long: NDArray[np.bool_]
    differ: Callable[[int, int], bool] = lambda one, other: False
    contexts: NDArray[np.int64] | None = None

    @cached_property
    def near(self) -> tuple[NDArray[np.int32], Floats]:
        """Each text's nearest other texts, as returned by `find_near`."""
        return find_near(self.probes, self.contexts)


@dataclass
class Replay:
    """The result of a replay under one policy.

    Attributes:
        policy: its name.
        outcomes: int8 [requests], EXACT, MISS or SEMANTIC.
        is_wrong: bool [requests], semantic hits whose similarity is below the requested one.
        different: semantic hits by a text that is labelled as different in meaning.
        scores, similarities: of every lookup that found a neighbour, in order.
        checks: hits that were checked.
        thresholds: (request, lowest score served or None), whenever it changed.
    """

    policy: str
    outcomes: NDArray[np.int8]
    is_wrong: NDArray[np.bool_]
    scores: list[float] = field(default_factory=list)
    similarities: list[float] = field(default_factory=list)
    different: int = 0
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
    """Which texts are stored, and the nearest of them to a text.

    Most texts have a stored one among the `_NEAR` nearest of all texts, which are the same for
    every policy; the others are compared with all that is stored.
    """

    def __init__(self, traffic: "Traffic") -> None:
        self._probes = traffic.probes
        self._contexts = traffic.contexts
        self._near, self._near_scores = traffic.near
        self._is_stored = np.zeros(len(traffic.probes), np.bool_)

    def add(self, text: int) -> None:
        self._is_stored[text] = True

    def nearest(self, text: int) -> tuple[int, float] | None:
        near = self._near[text]
        places = np.flatnonzero(self._is_stored[near] & (self._near_scores[text] > _NONE))
        if len(places):
            at = int(places[0])
            return int(near[at]), float(self._near_scores[text, at])
        may_be_found = self._is_stored
        if self._contexts is not None:
            may_be_found = may_be_found & (self._contexts == self._contexts[text])
        stored = np.flatnonzero(may_be_found)
        if not len(stored):
            return None
        scores = self._probes[stored] @ self._probes[text]
        best = int(scores.argmax())
        return int(stored[best]), float(scores[best])


def find_near(
    probes: Floats, contexts: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.int32], Floats]:
    """Return, for each row of `probes`, its nearest other rows, best first, and their scores.

    Rows of other contexts (int64 [n], if there are any) come last, with the score -2.
    """
    count = min(_NEAR, len(probes) - 1)
    rows = np.empty((len(probes), count), np.int32)
    best = np.empty((len(probes), count), np.float32)
    for start in range(0, len(probes), _BLOCK):
        scores = probes[start : start + _BLOCK] @ probes.T
        scores[np.arange(len(scores)), np.arange(start, start + len(scores))] = _NONE
        if contexts is not None:
            scores[contexts[start : start + _BLOCK, None] != contexts[None]] = _NONE
        found = np.argpartition(-scores, count - 1, axis=1)[:, :count] if count else rows[:0]
        for i, places in enumerate(found):
            order = places[np.argsort(-scores[i, places], kind="stable")]
            rows[start + i], best[start + i] = order, scores[i, order]
    return rows, best


def replay(
    traffic: Traffic,
    policy: Policy,
    min_similarity: float,
    progress: Callable[[Sequence[int]], Sequence[int]] = lambda requests: requests,
) -> Replay:
    """Return the policy's result for the traffic; `progress` wraps the loop over requests."""
    requests = traffic.requests.tolist()
    result = Replay(
        policy.name, np.zeros(len(requests), np.int8), np.zeros(len(requests), np.bool_)
    )
    stored = _Stored(traffic)
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
            result.different += traffic.differ(text, entry)
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
