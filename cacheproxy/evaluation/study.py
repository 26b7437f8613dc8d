"""One study: texts become traffic, the traffic is replayed under every policy."""

import asyncio
import hashlib
import os
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cacheproxy.evaluation.policies import Earned, PerEntryLogistic, Policy, Static
from cacheproxy.evaluation.replay import Floats, Replay, Traffic, replay
from cacheproxy.evaluation.retrieval import Recall
from cacheproxy.probes.probe import Probe
from cacheproxy.thresholds.bands import EDGES
from cacheproxy.thresholds.promise import Promise

STATIC_THRESHOLDS = (0.80, 0.90, 0.95, 0.99)

_PART = 4_096
_GROUP_TOKENS = 1_024

Encode = Callable[[NDArray[np.int64]], Floats]


class Progress(Protocol):
    """Wraps a loop in a progress bar."""

    def __call__(self, items: Sequence[int], what: str) -> Sequence[int]:
        """Return the items, shown as they are taken."""


@dataclass(frozen=True)
class Encoders:
    """Encodes token ids into vectors; its name distinguishes its results from other encoders'."""

    model: Encode
    probe: Probe
    fingerprint: str


@dataclass(frozen=True)
class Study:
    """Replays of the same traffic.

    Attributes:
        closed: the lookups if nothing is ever served.
        replays: one per policy, earned thresholds first.
        hindsight: by the static threshold that serves most without breaking the promise, or None.
        hindsight_threshold: that threshold.
        is_labelled: whether some texts are labelled as different in meaning.
        recall: how well neighbours' vectors work for a retriever; None if not requested.
        wrong_if: when a semantic hit is wrong, in words.
    """

    promise: Promise
    min_similarity: float
    requests: int
    closed: Replay
    replays: list[Replay]
    hindsight: Replay | None
    hindsight_threshold: float | None
    is_labelled: bool = False
    recall: Sequence[Recall] | None = None
    wrong_if: str = ""


def make_traffic(
    requests: Sequence[Sequence[int]],
    encoders: Encoders,
    *,
    min_tokens: int,
    work: Path | None,
    progress: Progress,
    differ: Callable[[int, int], bool] = lambda one, other: False,
) -> Traffic:
    """Return the traffic of requests, each a list of token ids.

    `differ` tells whether two requests, by their numbers, are labelled as different in meaning.
    With a work folder, embeddings are saved there in parts; a study that was interrupted or is
    repeated with other settings reuses them.
    """
    numbers: dict[tuple[int, ...], int] = {}
    order = [numbers.setdefault(tuple(ids), len(numbers)) for ids in requests]
    texts = list(numbers)
    vectors, probes = embed(texts, encoders, work=work, progress=progress)
    _, first = np.unique(order, return_index=True)
    return Traffic(
        requests=np.array(order, np.int64),
        vectors=vectors,
        probes=probes,
        is_long=np.array([len(ids) >= min_tokens for ids in texts]),
        differ=lambda one, other: differ(int(first[one]), int(first[other])),
    )


def embed(
    texts: Sequence[tuple[int, ...]], encoders: Encoders, *, work: Path | None, progress: Progress
) -> tuple[Floats, Floats]:
    """Return the vectors and the probes of texts, float32 [texts, d] each."""
    parts = [texts[start : start + _PART] for start in range(0, len(texts), _PART)]
    rows = [
        _embed(parts[number], encoders, work) for number in progress(range(len(parts)), "embedding")
    ]
    return np.concatenate([row[0] for row in rows]), np.concatenate([row[1] for row in rows])


def _embed(
    texts: Sequence[tuple[int, ...]], encoders: Encoders, work: Path | None
) -> tuple[Floats, Floats]:
    path = None
    if work is not None:
        digest = hashlib.sha256(encoders.fingerprint.encode())
        for ids in texts:
            digest.update(np.array([len(ids), *ids], "<u4").tobytes())
        path = work / f"{digest.hexdigest()[:24]}.npz"
        if path.is_file():
            with np.load(path, allow_pickle=False) as kept:
                return kept["vectors"], kept["probes"]
    vectors = _by_length(encoders.model, texts)
    probes = asyncio.run(encoders.probe.encode(texts))
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part.npz")
        np.savez(part, vectors=vectors, probes=probes)
        part.rename(path)
    return vectors, probes


def _by_length(encode: Encode, texts: Sequence[tuple[int, ...]]) -> Floats:
    order = sorted(range(len(texts)), key=lambda number: len(texts[number]))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        rows = np.concatenate(list(pool.map(encode, _groups(texts, order))))
    result: Floats = np.empty_like(rows)
    result[order] = rows
    return result


def _groups(texts: Sequence[tuple[int, ...]], order: Iterable[int]) -> Iterator[NDArray[np.int64]]:
    group: list[tuple[int, ...]] = []
    for number in order:
        ids = texts[number]
        if group and (len(ids) != len(group[0]) or len(ids) * len(group) >= _GROUP_TOKENS):
            yield np.array(group, np.int64)
            group = []
        group.append(ids)
    yield np.array(group, np.int64)


def run_study(
    traffic: Traffic,
    promise: Promise,
    min_similarity: float,
    *,
    seed: int,
    progress: Progress,
    checks_seconds: bool = True,
) -> Study:
    """Replay the traffic under every policy; deterministic for a seed."""

    def run(policy: Policy, name: str | None = None) -> Replay:
        return replay(
            traffic, policy, min_similarity, lambda items: progress(items, name or policy.name)
        )

    def draw() -> Callable[[], float]:
        return random.Random(seed).random  # noqa: S311

    ours = run(Earned(promise, min_similarity, draw(), checks_seconds=checks_seconds))
    closed = run(Static(2.0), "closed")
    others = [run(Static(threshold)) for threshold in STATIC_THRESHOLDS]
    others.append(run(PerEntryLogistic(promise.max_error, min_similarity, draw())))
    best: Replay | None = None
    best_threshold: float | None = None
    low, high = 0, len(EDGES)
    while low < high:
        middle = (low + high) // 2
        found = run(Static(EDGES[middle]), f"hindsight {EDGES[middle]:g}")
        if found.error <= promise.max_error:
            high = middle
            if best is None or found.hits > best.hits:
                best, best_threshold = found, EDGES[middle]
        else:
            low = middle + 1
    return Study(
        promise=promise,
        min_similarity=min_similarity,
        requests=len(traffic.requests),
        closed=closed,
        replays=[ours, *others],
        hindsight=best,
        hindsight_threshold=best_threshold,
        wrong_if=f"the cosine of the served and the true vector is below {min_similarity:g}",
    )
