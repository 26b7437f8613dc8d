"""The nodes of an index, which a search proposes: a graph of them, or few, which are all compared.

A graph takes 50 kB from its first node on (usearch 2.26, measured), and most conversations are
partitions of one probe. So one begins with few, and becomes a graph once there are so many that to
compare all would take longer than to search one.

usearch rather than hnswlib (float32 only) or faiss (its HNSW cannot remove): it has int8 nodes at a
quarter of the memory, reuses the slots of removed nodes, and releases the GIL while it searches.
"""

from pathlib import Path
from typing import Any, Protocol

import numpy as np

# First, though unused here: usearch 2.26 loads its kernels with RTLD_GLOBAL, and onnxruntime
# 1.31, loaded after them, crashes in its initialisation; loaded before them, both work.
import onnxruntime  # noqa: F401
from numpy.typing import NDArray
from usearch import __version__ as _usearch_version
from usearch.index import Index

GRAPH_KIND = f"usearch-{_usearch_version.split('.', maxsplit=1)[0]} cos i8"
"""What has to be equal for a saved graph to be of use."""

_CONNECTIVITY = 16
_EXPANSION_ADD = 128

_GRAPH_BYTES, _NODE_BYTES = 50_000, 200
"""Resident memory of a graph, and of a node without its code (measured at up to 8,000 nodes)."""


class Nodes(Protocol):
    """Nodes: names of 63 bits, with codes, int8 [d].

    Attributes:
        dimensions: of the codes.
        is_exact: whether a search finds the nearest for certain, so that a wider one finds no more.
    """

    dimensions: int
    is_exact: bool

    def __len__(self) -> int:
        """Return how many there are."""

    @property
    def keys(self) -> NDArray[np.uint64]:
        """Their names [n]."""

    @property
    def size_bytes(self) -> int:
        """The memory that they take, about."""

    def contains(self, keys: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Return which nodes there are."""

    def add(self, keys: NDArray[np.uint64], codes: NDArray[np.int8]) -> None:
        """Add nodes that are not there yet; codes: int8 [n, d]."""

    def remove(self, keys: NDArray[np.uint64]) -> None:
        """Remove those of the nodes that there are."""

    def codes_of(self, keys: NDArray[np.uint64]) -> NDArray[np.int8]:
        """Return the codes of nodes that there are, int8 [n, d]."""

    def search(
        self, codes: NDArray[np.int8], count: int, expansion: int
    ) -> list[NDArray[np.uint64]]:
        """Return, for each code [n, d], up to `count` nodes near to it by cosine, best first."""


class Few:
    """So few nodes that a search compares all of them, and each change copies them."""

    is_exact = True
    size_bytes: int
    keys: NDArray[np.uint64]

    def __init__(self, dimensions: int) -> None:
        self.dimensions = dimensions
        self._hold(np.empty(0, np.uint64), np.empty((0, dimensions), np.int8))

    def __len__(self) -> int:
        return len(self.keys)

    def contains(self, keys: NDArray[np.uint64]) -> NDArray[np.bool_]:
        return np.isin(keys, self.keys)

    def add(self, keys: NDArray[np.uint64], codes: NDArray[np.int8]) -> None:
        self._hold(np.concatenate([self.keys, keys]), np.concatenate([self._codes, codes]))

    def remove(self, keys: NDArray[np.uint64]) -> None:
        kept = ~np.isin(self.keys, keys)
        self._hold(self.keys[kept], self._codes[kept])

    def codes_of(self, keys: NDArray[np.uint64]) -> NDArray[np.int8]:
        order = np.argsort(self.keys)
        return self._codes[order[np.searchsorted(self.keys, keys, sorter=order)]]

    def search(
        self, codes: NDArray[np.int8], count: int, expansion: int
    ) -> list[NDArray[np.uint64]]:
        rows = self._codes.astype(np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        scores = codes.astype(np.float32) @ rows.T
        return [*self.keys[np.argsort(-scores, axis=1)[:, :count]]]

    def _hold(self, keys: NDArray[np.uint64], codes: NDArray[np.int8]) -> None:
        self.keys, self._codes = keys, codes
        self.size_bytes = keys.nbytes + codes.nbytes


class Graph:
    """An HNSW graph of usearch."""

    is_exact = False

    def __init__(self, dimensions: int) -> None:
        self.dimensions = dimensions
        # Not the inner product: rounding also changes lengths, and then the longest of many
        # near-equal vectors is the nearest to all of them. Of 500 within 1e-3 of one another in
        # float16, one found itself by the inner product, and all did by cosine (measured).
        self._index = Index(
            ndim=dimensions,
            metric="cos",
            dtype="i8",
            connectivity=_CONNECTIVITY,
            expansion_add=_EXPANSION_ADD,
        )

    def __len__(self) -> int:
        return len(self._index)

    @property
    def keys(self) -> NDArray[np.uint64]:
        return np.asarray(self._index.keys[:], np.uint64)

    @property
    def size_bytes(self) -> int:
        # usearch counts address space, of which 16.8 MB are reserved for the first node.
        return _GRAPH_BYTES + len(self) * (self.dimensions + _NODE_BYTES)

    def contains(self, keys: NDArray[np.uint64]) -> NDArray[np.bool_]:
        return np.asarray(self._index.contains(keys), np.bool_)

    def add(self, keys: NDArray[np.uint64], codes: NDArray[np.int8]) -> None:
        self._index.add(keys, codes, threads=1)

    def remove(self, keys: NDArray[np.uint64]) -> None:
        self._index.remove(keys)

    def codes_of(self, keys: NDArray[np.uint64]) -> NDArray[np.int8]:
        if not len(keys):
            return np.empty((0, self.dimensions), np.int8)
        codes: Any = self._index.get(keys, "i8")
        joined: NDArray[np.int8] = np.concatenate(codes).reshape(len(keys), -1)
        return joined

    def search(
        self, codes: NDArray[np.int8], count: int, expansion: int
    ) -> list[NDArray[np.uint64]]:
        self._index.expansion_search = expansion  # type: ignore[misc]  # its setter is not seen
        matches: Any = self._index.search(codes, count, threads=1)
        counts = [len(matches.keys)] if len(codes) == 1 else matches.counts
        rows = zip(np.atleast_2d(matches.keys), counts, strict=True)
        return [keys[:size] for keys, size in rows]

    def save(self, path: Path) -> int:
        """Write a file; return how long it must be."""
        self._index.save(path)
        return int(self._index.serialized_length)

    def load(self, path: Path) -> None:
        """Read a file that `save` wrote; usearch trusts what it says.

        Raises:
            RuntimeError: it cannot be read.
        """
        self._index.load(path)
