"""Probes as nodes hold them: int8, in graphs less their mean, and in larger ones also turned.

Static probes of questions have a mean of length 0.67, and texts near to it are near to all others,
so that a search is led astray. Of 60,000 probes of real questions, a graph of probes less their
mean found the nearest for 90 % of the queries, where one of whole probes found 78 % at the same
expansion; of neighbours with a score above 0.9, 98 % instead of 85 % (measured). What is nearest
without the mean is not always what is nearest with it. So the scores that decide which candidates
are read are computed from the codes with the mean.

Once there are enough probes to know how they are spread, they are also turned to their principal
axes, and the axes along which they differ most are shrunk a little. A few of those hold most of
what two texts differ in, and lead a search to many texts of one subject instead of to the one that
is meant. Of 185,000 probes, a graph of turned ones found the nearest for 99.6 % of the queries
whose nearest has a score above 0.9, and one of probes less their mean for 99.0 %, both at expansion
64 (measured). The scores undo the turn.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cacheproxy.stores.embedded.index.nodes import Nodes

_MOST = 127

_ROOM = 1.2
"""How much larger numbers may be than those that the scale was made for, before they are cut."""

_CUT = 1e-5
"""The share of numbers, the largest, that the scale is not made for: a few are far larger than all
others, and to leave room for them would round the others twice as coarsely."""

_UNSCALED = np.ones(1, np.float32)

_CENTRED_FROM = 512
"""Nodes from which on there is a graph, of probes less their mean. To compare so many takes
0.2 ms, as long as to search a graph of them (measured, 256 dimensions)."""

_TURNED_FROM = 32
"""Nodes for each dimension from which on a graph's probes are turned as well. The axes of fewer are
known too badly; and the matrix takes an eighth of the memory of so many codes, or less."""

_COPIED = 256
"""Nodes whose codes are copied at once: some 1 ms."""

_SHRINKING = 0.2
"""Probes are divided by their variance along an axis to this power."""

_VARIANCE_ADDED = 0.1
"""So much of the mean variance is added to each, for the axes of which little is known."""


FEW, MORE = 16, 32
"""How many nodes a search proposes; some may be gone."""

_EXPANSION, _QUICK_EXPANSION = 192, 48
_SURE = 0.95
"""A quick search comes first, which takes a third as long. If it finds a node of this score, that
nearly always is the nearest one; only what it misses is searched for more widely."""

_MARGIN = 0.006
"""Candidates are read and scored exactly if their codes' scores are so little behind the best, and
if all of these are gone, all. Rounding moves a score by some 0.001 (standard deviation)."""


class Proposed(NamedTuple):
    """Nodes that a search found; keys: uint64 [n], scores: float32 [n], by their codes."""

    keys: NDArray[np.uint64]
    scores: NDArray[np.float32]

    @property
    def best(self) -> float:
        """The best score."""
        return float(self.scores.max(initial=-1.0))

    def near_best(self) -> "Proposed":
        """Return those that may be the best."""
        order = np.argsort(-self.scores)[:FEW]
        near = order[self.scores[order] >= self.best - _MARGIN]
        return Proposed(self.keys[near], self.scores[near])


class Codes:
    """How the probes of one graph are rounded, and what scores their codes give."""

    def __init__(
        self,
        centre: NDArray[np.float32] | None = None,
        scale: NDArray[np.float32] = _UNSCALED,
        axes: NDArray[np.float32] | None = None,
    ) -> None:
        """Subtract `centre`, float32 [d], turn, and multiply by `scale`, float32 [1] or [d].

        Turned is by the columns of `axes`, float32 [d, d], orthonormal. Without a centre, each
        probe is scaled so that its largest number is 127, which the cosine does not see. (usearch
        itself would scale a unit vector's length to 127, which leaves 256 numbers of about 8.)
        """
        self.centre = centre
        self._scale = scale
        self._axes = axes

    @property
    def size_bytes(self) -> int:
        """Their memory, for the most part."""
        return 0 if self._axes is None else self._axes.nbytes

    def is_outgrown(self, nodes: int, dimensions: int) -> bool:
        """Return whether so many nodes are better searched with `learnt` codes."""
        if self.centre is None:
            return nodes >= _CENTRED_FROM
        return self._axes is None and nodes >= _TURNED_FROM * dimensions

    def learnt(self, nodes: Nodes) -> "Codes":
        """Return better ones for the probes of nodes that have these."""
        keys = nodes.keys
        some = keys[:: -(-len(keys) // (_TURNED_FROM * nodes.dimensions))]
        # In parts, as usearch holds the GIL while it copies codes.
        parts = (some[start : start + _COPIED] for start in range(0, len(some), _COPIED))
        probes = self._probes(np.concatenate([nodes.codes_of(part) for part in parts]))
        centre = probes.mean(axis=0)
        apart = probes - centre
        if len(keys) < _TURNED_FROM * nodes.dimensions:
            return Codes(centre, _scale_for(apart))
        variances, axes = np.linalg.eigh(apart.T @ apart / len(apart))
        spread = np.maximum(variances, 0.0) + _VARIANCE_ADDED * variances.mean() + 1e-12
        shrunk = (spread / spread.max()) ** -_SHRINKING
        return Codes(centre, shrunk * _scale_for((apart @ axes) * shrunk), axes)

    @classmethod
    def read(cls, saved: bytes | None, dimensions: int) -> "Codes":
        """Return what `saved` was made of."""
        if saved is None:
            return cls()
        centre, rest = np.split(np.frombuffer(saved, "<f4"), [dimensions])
        if len(rest) == 1:
            return cls(centre, rest)
        return cls(centre, rest[:dimensions], rest[dimensions:].reshape(dimensions, dimensions))

    @property
    def saved(self) -> bytes | None:
        """All of it in bytes; None without a centre."""
        if self.centre is None:
            return None
        parts = [self.centre, self._scale, *([] if self._axes is None else [self._axes.ravel()])]
        return np.concatenate(parts).astype("<f4").tobytes()

    def of(self, probes: NDArray[np.float32]) -> NDArray[np.int8]:
        """Return the codes, int8 [n, d], of float32 [n, d] unit rows."""
        if self.centre is None:
            rows = probes * (_MOST / np.abs(probes).max(axis=1, keepdims=True))
        else:
            rows = np.clip(self._turned(probes - self.centre) * self._scale, -_MOST, _MOST)
        rounded: NDArray[np.int8] = np.rint(rows).astype(np.int8)
        return rounded

    def scores(self, probe: NDArray[np.float32], codes: NDArray[np.int8]) -> NDArray[np.float32]:
        """Return about the scores, float32 [n], that the probes of codes int8 [n, d] have."""
        rows = codes.astype(np.float32)
        scores: NDArray[np.float32]
        if self.centre is None:
            scores = rows @ probe / np.linalg.norm(rows, axis=1)
        else:
            scores = self.centre @ probe + rows @ (self._turned(probe) / self._scale)
        return scores

    def _turned(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        return rows if self._axes is None else rows @ self._axes

    def _probes(self, codes: NDArray[np.int8]) -> NDArray[np.float32]:
        """Return about the probes, float32 [n, d], that have these codes."""
        rows = codes.astype(np.float32)
        if self.centre is None:
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
            return rows
        rows /= self._scale
        return self.centre + (rows if self._axes is None else rows @ self._axes.T)


def _scale_for(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return by what these, and somewhat larger ones, are multiplied: float32 [1]."""
    largest = max(float(np.quantile(np.abs(rows), 1.0 - _CUT)), 1e-6)
    return np.array([_MOST / (_ROOM * largest)], np.float32)


def propose_few(nodes: Nodes, codes: Codes, probes: NDArray[np.float32]) -> list[Proposed]:
    """Return, for each probe (float32 [n, d]), the nodes that may be the nearest to it."""
    found = _search(nodes, codes, probes, FEW, _QUICK_EXPANSION)
    unsure = [row for row, one in enumerate(found) if one.best < _SURE]
    if unsure and not nodes.is_exact:
        again = propose_more(nodes, codes, probes[unsure])
        for row, one in zip(unsure, again, strict=True):
            found[row] = one
    return [one.near_best() for one in found]


def propose_more(
    nodes: Nodes, codes: Codes, probes: NDArray[np.float32], count: int = MORE
) -> list[Proposed]:
    """Return, for each probe (float32 [n, d]), up to `count` nodes near to it."""
    return _search(nodes, codes, probes, count, max(count, _EXPANSION))


def _search(
    nodes: Nodes, codes: Codes, probes: NDArray[np.float32], count: int, expansion: int
) -> list[Proposed]:
    found = nodes.search(codes.of(probes), count, expansion)
    return [
        Proposed(keys, codes.scores(probe, nodes.codes_of(keys)))
        for probe, keys in zip(probes, found, strict=True)
    ]
