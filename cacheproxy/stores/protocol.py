"""The interface between the tiers and the stores.

A store keeps opaque records under 32-byte keys with an expiry, and finds the entry nearest to a
probe vector within one partition. It knows nothing of texts, models or thresholds. Every call may
raise `StoreError` or be slow: the tiers set a deadline for each call and can do without its answer.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from cacheproxy.errors import StoreError
from cacheproxy.stores.purges import Purges, Scope

_UNIT_TOLERANCE = 1e-3
"""Tolerance of a probe's length; upstreams with float16 weights deviate by up to 5e-4."""


class Partition(NamedTuple):
    """The entries that a KNN lookup may see: one namespace under one model fingerprint.

    Attributes:
        namespace_id: the namespace that owns the entries.
        fingerprint: of the model and the probe; scores under different ones are not comparable.
        context: what else must be equal, as a string; empty if nothing.
    """

    namespace_id: str
    fingerprint: str
    context: str = ""


class Entry(NamedTuple):
    """An entry to write, atomically and always with an expiry.

    Attributes:
        key: 32 bytes, unique over all partitions.
        record: opaque bytes, returned unchanged.
        expires_at: Unix time at which the entry expires, seconds.
        tags: names under which the entry may be purged later.
        probe: float32 [d], unit length; None keeps the entry out of the KNN index.
        generation: `Purges.generation` when the work that made the entry began; it is not written
            if a later purge names it.
    """

    key: bytes
    partition: Partition
    record: bytes
    expires_at: float
    tags: tuple[str, ...] = ()
    probe: NDArray[np.float32] | None = None
    generation: int = 0


class Neighbour(NamedTuple):
    """The nearest live entry of a partition.

    `score` is the cosine of the two probes, -1 to 1, at the store's precision: at least float16,
    which leaves an error of about 1e-5.
    """

    key: bytes
    record: bytes
    score: float


@dataclass(frozen=True, slots=True)
class IndexStats:
    """The state of lookups by probe, over all models; NaN where a figure is unknown.

    Attributes:
        is_up: whether they can be answered.
        documents: indexed entries; the embedded store counts the distinct probes in memory.
        failures: entries that could not be indexed.
        size_bytes: the memory that the indexes use.
        indexed_ratio: the share of the entries that is already indexed, 0 to 1.
        rebuilds: indexes rebuilt since the store was opened, because they returned nothing.
    """

    is_up: bool = True
    documents: float = math.nan
    failures: float = math.nan
    size_bytes: float = math.nan
    indexed_ratio: float = math.nan
    rebuilds: int = 0


@dataclass(frozen=True, slots=True)
class StoreStats:
    """Figures for metrics; NaN where a store keeps no count.

    Attributes:
        entries: number of entries; may include expired ones that are not removed yet.
        live_bytes: the space that the entries use.
        index: the state of the lookups by probe.
    """

    entries: float = 0
    live_bytes: float = 0
    index: IndexStats = IndexStats()


@dataclass(frozen=True, slots=True)
class Census:
    """The result of counting every entry.

    Attributes:
        entries: number of entries; may include expired ones that are not removed yet.
        size_bytes: the store's size, indexes included; NaN if it cannot be known.
        namespaces: entries by `hex_id` of the namespace's id.
    """

    entries: int
    size_bytes: float
    namespaces: Mapping[str, int] = field(default_factory=dict)


Progress = Callable[[int], None]
"""Called from time to time with the number of entries that a purge has removed so far."""


class Store(Protocol):
    """Exact and nearest-neighbour lookups over the same entries.

    Every method raises `StoreError` if the store cannot answer. Any number of processes may use one
    store; purges and replacements by other processes reach `purges` within 100 ms.

    Attributes:
        lookups_at_once: the number of concurrent `get_many` calls that is worthwhile.
        purges: the purges that this process knows of.
    """

    lookups_at_once: int
    purges: Purges

    async def open(self) -> None:
        """Open the store; called once, before any other method."""

    async def close(self) -> None:
        """Finish the calls in progress and release everything; later calls raise `StoreError`."""

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return each key's live record, or None, in the order of the keys."""

    async def nearest(
        self, partition: Partition, probes: NDArray[np.float32]
    ) -> list[Neighbour | None]:
        """Return, for each row of `probes` (float32 [n, d], unit rows), the nearest live entry."""

    async def candidates(
        self, partition: Partition, probe: NDArray[np.float32], count: int
    ) -> list[Neighbour]:
        """Return up to `count` live entries nearest to a probe (float32 [d], unit), best first."""

    async def put_many(self, entries: Sequence[Entry]) -> int:
        """Write the entries, each atomically; a key that exists is replaced.

        Return how many keys were written; entries that a purge excludes are not.
        """

    async def purge(self, scope: Scope, progress: Progress | None = None) -> int:
        """Remove all entries of the scope made before now; return their number.

        From the start, no lookup that knows of the purge returns such an entry, and none that is in
        flight is written. When the call returns, all have been removed. A purge that fails halfway
        remains in force.
        """

    async def census(self) -> Census:
        """Count every entry; may take seconds."""

    async def read_state(self, name: str) -> bytes | None:
        """Return the live state of that name: small data that processes share besides entries."""

    async def swap_state(self, name: str, old: bytes | None, new: bytes, expires_at: float) -> bool:
        """Write a state if the current one is `old` (None: there is none); return whether it was.

        `expires_at` is Unix time, seconds, as for entries.
        """

    def stats(self) -> StoreStats:
        """Return the store's figures, as far as they are known without I/O."""


def unit_probe(probe: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return an entry's probe as float32 [d].

    Raises:
        StoreError: it is not a vector of unit length.
    """
    vector = np.asarray(probe, np.float32)
    # Also rejects NaN and infinities, which would corrupt an index for other entries.
    if vector.ndim != 1 or not abs(float(vector @ vector) - 1.0) < 2 * _UNIT_TOLERANCE:
        raise StoreError("a probe is not a vector of unit length", "invalid")
    return vector
