"""The interface between the tiers and the stores that keep entries.

A store keeps opaque records under 32-byte keys with an expiry, and finds the entry nearest to a
probe vector inside one partition. It knows nothing of texts, models or thresholds. Every call may
raise `StoreError` or be slow: the tiers put a deadline on each and go on without an answer.
"""

import math
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from cacheproxy.errors import StoreError
from cacheproxy.keys import hex_id
from cacheproxy.stores.purges import PurgeNote, Purges, Scope

MODEL_CHARACTERS = 16

_UNIT_TOLERANCE = 1e-3
"""How far a probe's length may be from 1; float16 weights upstream leave up to 5e-4."""


class Partition(NamedTuple):
    """What a KNN lookup may see: one namespace under one model fingerprint.

    Attributes:
        namespace_id: whose entries they are.
        fingerprint: of the model and the probe; scores of different ones do not compare.
        context: anything else that must be equal, as a string; may be empty.

    An entry that a store was scanned for has `Hashed` ones.
    """

    namespace_id: str
    fingerprint: str
    context: str = ""

    @property
    def model_id(self) -> str:
        """16 hex characters that stand for the fingerprint."""
        return model_id(self.fingerprint)


class Entry(NamedTuple):
    """What is written: whole or not at all, and never without an expiry.

    Attributes:
        key: 32 bytes, unique over all partitions.
        record: opaque bytes, returned unchanged.
        expires_at: Unix time from which the entry is gone, seconds.
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

    `score` is the cosine of the two probes, -1 to 1, from the probe as stored: in float16 or
    better, which leaves an error of some 1e-5.
    """

    key: bytes
    record: bytes
    score: float


@dataclass(frozen=True, slots=True)
class IndexStats:
    """The state of lookups by probe, over all models; NaN if unknown.

    Attributes:
        is_up: whether they work.
        documents: entries that can be found; the embedded store counts distinct probes that it has
            in memory.
        failures: entries that could not be indexed.
        size_bytes: what the indexes take in memory.
        indexed_ratio: the share of the entries that is indexed already, 0 to 1.
        rebuilds: of indexes that returned nothing for existing entries, since `open`.
        off_because: why they do not work, in a sentence; None while they do.
    """

    is_up: bool = True
    documents: float = math.nan
    failures: float = math.nan
    size_bytes: float = math.nan
    indexed_ratio: float = math.nan
    rebuilds: int = 0
    off_because: str | None = None


@dataclass(frozen=True, slots=True)
class StoreStats:
    """Figures for metrics; NaN if the store keeps no count.

    Attributes:
        entries: may include expired ones that are still to be removed.
        live_bytes: what the entries take.
        index: what is known of the lookups by probe.
        undecryptable: records that were found and did not decrypt, since `open`.
        unanswered: lookups that went on without a node of a cluster, since `open`.
    """

    entries: float = 0
    live_bytes: float = 0
    index: IndexStats = IndexStats()
    undecryptable: int = 0
    unanswered: int = 0


@dataclass(frozen=True, slots=True)
class Census:
    """What a count of every entry found.

    Attributes:
        entries: may include expired ones that are still to be removed.
        size_bytes: of the store, indexes included; NaN if unknown.
        namespaces: entries by `hex_id` of the namespace's id.
    """

    entries: int
    size_bytes: float
    namespaces: Mapping[str, int] = field(default_factory=dict)


Progress = Callable[[int], None]
"""Called now and then with the number of entries that a purge has removed so far."""


class Store(Protocol):
    """An exact and a nearest-neighbour lookup over the same entries.

    Every method raises `StoreError` when the store cannot answer. Any number of processes may use
    one store; `purges` hears within 100 ms what another process purged or replaced.

    Attributes:
        lookups_at_once: calls of `get_many` that gain from being made at the same time.
        purges: what this process has heard of purges.
    """

    lookups_at_once: int
    purges: Purges

    async def open(self) -> None:
        """Make the store ready; called once before anything else."""

    async def close(self) -> None:
        """Wait for the calls in progress and release everything; later calls raise `StoreError`."""

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

        Return how many keys were written; entries that a purge forbids are left out.
        """

    async def entry(self, key: bytes) -> Entry | None:
        """Return the live entry of a key with all that is kept beside its record, as `scan` does.

        For operators: it costs more than `get_many`.
        """

    def scan(self, namespace_ids: Collection[str] | None = None) -> AsyncIterator[list[Entry]]:
        """Yield all live entries in parts, or those of some namespaces.

        What a store has only hashes of is `Hashed` in them: tags, fingerprint, context, and where
        no namespaces are named, the namespace. `put_many` takes such entries once the namespace is
        known. An entry that is written meanwhile may be missing or come twice.
        """

    async def purged_since(self, generation: int) -> list[PurgeNote]:
        """Return the purges with a higher generation that are still noted: those of an hour."""

    async def purge(self, scope: Scope, progress: Progress | None = None) -> int:
        """Remove the entries in scope whose work began before now; return how many they were.

        As soon as the purge has begun, no lookup that knows of it finds these entries, and writes
        of such entries are refused. When this returns, all are removed. A purge that fails midway
        stays in force.
        """

    async def census(self) -> Census:
        """Count every entry; may take seconds."""

    async def read_state(self, name: str) -> bytes | None:
        """Return the live state of that name: a small value that processes share."""

    async def swap_state(self, name: str, old: bytes | None, new: bytes, expires_at: float) -> bool:
        """Write a state if it still is `old` (None: if there is none); return whether it was.

        `expires_at` is Unix time, seconds, as for entries.
        """

    def stats(self) -> StoreStats:
        """Return what the store holds, without asking it."""


@lru_cache(1_024, typed=True)
def model_id(fingerprint: str) -> str:
    """Return 16 hex characters that stand for a partition's fingerprint in a store."""
    return hex_id(fingerprint)[:MODEL_CHARACTERS]


def unit_probe(probe: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return an entry's probe as float32 [d].

    Raises:
        StoreError: it is no vector of unit length.
    """
    vector = np.asarray(probe, np.float32)
    # Also refuses NaN and infinities, which would spoil an index for their neighbours.
    if vector.ndim != 1 or not abs(float(vector @ vector) - 1.0) < 2 * _UNIT_TOLERANCE:
        raise StoreError("a probe is not a vector of unit length", "invalid")
    return vector
