"""How well a served neighbour's vector works for a retriever.

For texts of the traffic and their near neighbours: of the ten documents that a text's own vector
finds first, the share that the neighbour's vector finds among its first ten, by the cosine of the
two vectors. It shows what a `min_similarity` means for the documents at hand.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cacheproxy.evaluation.replay import Floats, Traffic

LEAST_DOCUMENTS = _TOP = 10
_MOST_PAIRS = 2_000
_BLOCK = 256

_EDGES = (0.85, 0.90, 0.92, 0.95, 0.97, 0.99)
LEAST_COSINE = _EDGES[0]


class Recall(NamedTuple):
    """One row of the table.

    Attributes:
        lowest, highest: of the cosines of these pairs; the highest is left out.
        pairs: how many were compared.
        share: of a text's first documents, found by its neighbour's vector.
    """

    lowest: float
    highest: float
    pairs: int
    share: float


def recall_by_similarity(traffic: Traffic, documents: Floats) -> list[Recall]:
    """Return a row for each range of cosines that has pairs, the nearest first.

    There is none where no two texts were found at `LEAST_COSINE` or more.

    Args:
        traffic: whose texts are served their neighbours' vectors.
        documents: float32 [documents, dim] unit rows, ten or more.
    """
    near, _ = traffic.near
    cosines = np.concatenate(
        [
            np.einsum("td,tnd->tn", traffic.vectors[start:end], traffic.vectors[near[start:end]])
            for start, end in pairwise(range(0, len(near) + _BLOCK, _BLOCK))
        ]
    )
    rows = []
    for lowest, highest in reversed(list(zip(_EDGES, (*_EDGES[1:], np.inf), strict=True))):
        is_within = (cosines >= lowest) & (cosines < highest)
        texts = np.flatnonzero(is_within.any(axis=1))[:_MOST_PAIRS]
        if len(texts):
            neighbours = near[texts, is_within[texts].argmax(axis=1)]
            own, served = (_first(traffic.vectors[of], documents) for of in (texts, neighbours))
            found = [
                len(set(a) & set(b)) for a, b in zip(own.tolist(), served.tolist(), strict=True)
            ]
            rows.append(Recall(lowest, highest, len(texts), float(np.mean(found)) / _TOP))
    return rows


def _first(queries: Floats, documents: Floats) -> NDArray[np.int64]:
    """Return the documents that each query finds first, in no order."""

    def blocks() -> Iterator[NDArray[np.int64]]:
        for start in range(0, len(queries), _BLOCK):
            scores = queries[start : start + _BLOCK] @ documents.T
            yield np.argpartition(-scores, _TOP - 1, axis=1)[:, :_TOP]

    return np.concatenate(list(blocks()))
