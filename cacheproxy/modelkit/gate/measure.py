"""Measures an INT8 model against its float original, on texts that were not used in calibration.

It measures the cosine between both models' vectors of a text, whether both find the same nearest
text, how well each model's cosines correlate with human scores of pairs (STS), how often it finds
the document that belongs to a query, and whether a text's vector is bit-identical alone and in a
batch.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cacheproxy.modelkit.building.corpus import group_by_length
from cacheproxy.modelkit.building.weights import Floats
from cacheproxy.modelkit.gate.gate import GateReport, Quality

_GROUP_SIZES = (2, 3, 7, 16, 64)
_GROUP_TOKENS = 2048
"""Largest group in the check of invariance: several times what the batcher ever forms."""

_CALL_TOKENS = 2048
"""Tokens in one call: what lies between two layers then stays in the caches."""

Encode = Callable[[NDArray[np.int64]], Floats]
Ids = Sequence[list[int]]


@dataclass(frozen=True)
class GateTexts:
    """Token ids of the texts to measure.

    Attributes:
        held_out: texts that were not used in calibration.
        firsts, seconds: pairs of texts.
        scores: the similarity of each pair.
        queries, documents: of a search; the first documents belong to the queries.
    """

    held_out: Ids
    firsts: Ids
    seconds: Ids
    scores: Sequence[float]
    queries: Ids
    documents: Ids


def measure(
    served: Encode, original: Encode, texts: GateTexts, *, batch_tolerance: float = 0.0
) -> GateReport:
    """Return the gate's figures for two models that encode int64 [n, tokens] to unit rows.

    `batch_tolerance` is how much a vector's values may change with its batch.
    """
    ours, theirs = embed(served, texts.held_out), embed(original, texts.held_out)
    cosines = np.einsum("nd,nd->n", ours.astype(np.float64), theirs.astype(np.float64))
    groups = group_by_length(texts.held_out)
    checks, failures = count_batch_effects(served, groups, batch_tolerance)
    return GateReport(
        texts=len(cosines),
        cosine_mean=float(cosines.mean()),
        cosine_p1=float(np.percentile(cosines, 1)),
        cosine_least=float(cosines.min()),
        neighbour_agreement=float((_nearest(ours) == _nearest(theirs)).mean()),
        pairs=len(texts.scores),
        queries=len(texts.queries),
        served=_quality(served, texts),
        original=_quality(original, texts),
        invariance_checks=checks,
        invariance_failures=failures,
    )


def embed(encode: Encode, texts: Ids) -> Floats:
    """Return float32 [texts, dim] rows in the order of the texts."""
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    groups = [
        part
        for ids in group_by_length(texts[i] for i in order)
        for part in np.array_split(ids, -(-ids.size // _CALL_TOKENS))
    ]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        rows = np.concatenate(list(pool.map(encode, groups)))
    result: Floats = np.empty_like(rows)
    result[order] = rows
    return result


def _quality(encode: Encode, texts: GateTexts) -> Quality:
    cosines = np.sum(embed(encode, texts.firsts) * embed(encode, texts.seconds), axis=1)
    found = embed(encode, texts.queries) @ embed(encode, texts.documents).T
    own = np.diagonal(found)[:, None]
    better = (found > own).sum(axis=1)
    return Quality(
        sts=spearman(np.asarray(texts.scores), cosines),
        recall_at_1=float((better < 1).mean()),
        recall_at_10=float((better < 10).mean()),
    )


def spearman(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """Return Spearman's rank correlation; equal values share their mean rank."""
    return float(np.corrcoef(_ranks(a), _ranks(b))[0, 1])


def _ranks(values: NDArray[np.floating]) -> NDArray[np.float64]:
    _, positions, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks: NDArray[np.float64] = ((2 * ends - counts - 1) / 2)[positions]
    return ranks


def _nearest(vectors: Floats) -> NDArray[np.intp]:
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -np.inf)
    nearest: NDArray[np.intp] = scores.argmax(axis=1)
    return nearest


def count_batch_effects(
    encode: Encode, groups: Sequence[NDArray[np.int64]], tolerance: float
) -> tuple[int, int]:
    """Return how many vectors were compared with those of texts alone, and how many differed."""
    checks = failures = 0
    # Every third length is enough to meet each kernel's full and partial tiles.
    for ids in groups[::3]:
        text = ids[:1]
        (alone,) = encode(text)
        for size in _GROUP_SIZES:
            if text.size * size > _GROUP_TOKENS:
                break
            mates = np.resize(ids[::-1], (size, ids.shape[1]))
            mates[size // 2] = text[0]
            checks += 1
            difference = np.abs(encode(mates)[size // 2] - alone).max()
            failures += not difference <= tolerance  # true for NaN
    return checks, failures
