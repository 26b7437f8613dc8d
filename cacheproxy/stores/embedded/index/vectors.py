"""Vector indexes of the embedded store: the nodes of a partition, rebuilt from SQLite on need.

An index only proposes candidates, which are then read from SQLite and scored. So it may lag behind
the rows, or name rows that are gone: that costs a miss, never a wrong answer. Its nodes are
distinct probes (by `probe_hash`), not entries: 500 equal probes in a graph hide one another and cut
recall for all others to 0.96 (measured), and an entry that is rewritten leaves the graph untouched.
"""

import json
from collections.abc import Collection, Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cacheproxy.fairness.shelves import FairMap
from cacheproxy.keys import KEY_BYTES, owner_of
from cacheproxy.stores.embedded.database import Connection
from cacheproxy.stores.embedded.index.codes import (
    FEW,
    MORE,
    Codes,
    propose_few,
    propose_more,
)
from cacheproxy.stores.embedded.index.nodes import Few, Graph, Nodes
from cacheproxy.stores.embedded.rows import Removed, parse_pairs, partition_id, probe_hash, split
from cacheproxy.stores.protocol import Neighbour, Partition

CATCH_UP_ROWS = 4
"""Rows per job of indexing: some 2 ms, for which a lookup may have to wait."""

_CHECK_NODES = 64
"""Nodes that one job checks for rows: few, as each may read a page."""

_SHRINK_BELOW = 0.25
_SHRINK_FROM = 4096
"""A graph that once held 4,096 nodes and has lost three quarters of them is rebuilt: removed nodes
stay in it and are searched through, and with 90 % removed a search takes four times as long
(measured)."""

# The live rows of the given probes, joined into one row (see `rows`). Rows with the same probe are
# equally near, so the one that expires last stands for them.
_LIVE = """
SELECT
    group_concat(hash.key || ':' || length(record)),
    CAST(group_concat(entries.key, '') AS BLOB),
    CAST(group_concat(probe, '') AS BLOB),
    CAST(group_concat(record, '') AS BLOB)
FROM json_each(?1) AS hash CROSS JOIN entries ON entries.id = (
    SELECT id FROM standing_entries
    WHERE partition = ?2 AND probe_hash = hash.value AND expires_at > ?3
    ORDER BY expires_at DESC LIMIT 1
)
"""

_IS_BEHIND = "SELECT EXISTS (SELECT 1 FROM entries WHERE partition = ?1 AND id > ?2)"

_WRITTEN_AFTER = """
SELECT
    max(id),
    count(*),
    CAST(group_concat(probe, '') FILTER (WHERE expires_at > ?3) AS BLOB)
FROM (
    SELECT id, expires_at, probe FROM entries
    WHERE partition = ?1 AND id > ?2
    ORDER BY id LIMIT ?4
)
"""

_GONE = """
SELECT json_group_array(hash.value) FROM json_each(?1) AS hash
WHERE NOT EXISTS (SELECT 1 FROM entries WHERE partition = ?2 AND probe_hash = hash.value)
"""


class _Live(NamedTuple):
    """A live row; probe: float32 [d]."""

    key: bytes
    probe: NDArray[np.float32]
    record: bytes


class PartitionIndex:
    """The probes of one partition. One thread owns it.

    Attributes:
        ready: whether it has held all rows once, of now or of when its snapshot was made; before
            that, it is not searched.
        last_id: of the newest row that it has seen.
        indexed: rows that it has seen since it was made, loaded or saved.
        partition: its id (`rows.partition_id`).
        dimensions: of the probes.
        nodes: named by `probe_hash`.
        codes: what probes are in the nodes.
    """

    def __init__(self, partition: bytes, dimensions: int, codes: Codes | None = None) -> None:
        self.ready = False
        self.last_id = 0
        self.indexed = 0
        self.partition = partition
        self.dimensions = dimensions
        self.codes = codes or Codes()
        self.nodes = self._no_nodes()
        self._next: PartitionIndex | None = None  # is to take the place of this one
        self._most_nodes = 0
        self._unchecked: NDArray[np.uint64] = np.empty(0, np.uint64)

    @property
    def probes(self) -> int:
        """How many distinct probes it has."""
        return len(self.nodes)

    @property
    def size_bytes(self) -> int:
        """The memory that it takes, about."""
        return self.nodes.size_bytes + self.codes.size_bytes

    def restore(self, graph: Graph, codes: Codes, last_id: int) -> None:
        """Take over the graph of a snapshot that had seen the rows up to `last_id`.

        What was removed since is still in it: it is never found, as lookups read the rows, and
        leaves the graph when it is next proposed, or by `check_some`.
        """
        self.nodes, self.codes, self.last_id = graph, codes, last_id
        self.indexed, self.ready = 0, True
        self._most_nodes = len(graph)
        self.begin_check()

    def begin_check(self) -> None:
        """Have `check_some` check every node that there is now."""
        self._unchecked = self.nodes.keys

    def check_some(self, connection: Connection) -> bool:
        """Remove those of a slice of the unchecked nodes that have no row; return whether all are
        checked.
        """
        some, self._unchecked = np.split(self._unchecked, [_CHECK_NODES])
        if len(some):
            self.discard(connection, some[self.nodes.contains(some)].tolist())
        return not len(self._unchecked)

    def catch_up(self, connection: Connection, now: float, most: int = CATCH_UP_ROWS) -> bool:
        """Index a slice of the rows written since the last call; return whether none are left.

        Rows are read in the order of their ids, which is the order of commits, so that no row is
        skipped, whichever process wrote it.
        """
        last_id, rows, joined = connection.execute(
            _WRITTEN_AFTER, (self.partition, self.last_id, now, most)
        ).fetchone()
        if joined is not None:
            probes = np.frombuffer(joined, "<f4").reshape(-1, self.dimensions)
            new = {probe_hash(probe): probe for probe in probes}
            keys = np.fromiter(new, np.uint64, len(new))
            missing = ~self.nodes.contains(keys)
            if missing.any():
                added = np.stack([*new.values()])[missing]
                self.nodes.add(keys[missing], self.codes.of(added))
                self._most_nodes = max(self._most_nodes, len(self.nodes))
        if last_id is not None:
            self.last_id = last_id
        self.indexed += rows
        if self._next is None and self.codes.is_outgrown(len(self.nodes), self.dimensions):
            self._use_codes(self.codes.learnt(self.nodes))
            return False
        if rows < most:
            self.ready = True
            return self._next is None or self._change_over(self._next, connection, now, most)
        return False

    def _use_codes(self, codes: Codes) -> None:
        """Begin a graph with other codes; the nodes that are searched stay until then."""
        if self.ready:
            self._next = PartitionIndex(self.partition, self.dimensions, codes)
        else:
            self.codes = codes
            self._begin_anew()

    def _change_over(
        self, to: "PartitionIndex", connection: Connection, now: float, most: int
    ) -> bool:
        if not to.catch_up(connection, now, most):
            return False
        self.nodes, self.codes, self.last_id = to.nodes, to.codes, to.last_id
        self._most_nodes, self._next = len(to.nodes), None
        return True

    def is_behind(self, connection: Connection) -> bool:
        """Return whether rows have been written that are not indexed yet."""
        (behind,) = connection.execute(_IS_BEHIND, (self.partition, self.last_id)).fetchone()
        return bool(behind)

    def discard(self, connection: Connection, hashes: Collection[int]) -> None:
        """Remove those probes that no row of the partition has any more."""
        arguments = (json.dumps(list(hashes)), self.partition)
        (gone,) = connection.execute(_GONE, arguments).fetchone()
        self._remove(json.loads(gone))

    def nearest(
        self, connection: Connection, probes: NDArray[np.float32], now: float
    ) -> list[Neighbour | None]:
        """Return the nearest live entry of each probe (float32 [n, d], unit rows).

        The score is the float32 dot product with the stored probe, not the graph's approximation.
        """
        answers: list[Neighbour | None] = [None] * len(probes)
        pending = list(range(len(probes)))
        for propose in (propose_few, propose_more):
            if not pending or not len(self.nodes):
                break
            proposed = [
                one.keys.tolist() for one in propose(self.nodes, self.codes, probes[pending])
            ]
            live = self._read(connection, {value for row in proposed for value in row}, now)
            lost = []
            for query, hashes in zip(pending, proposed, strict=True):
                alive = [live[value] for value in hashes if value in live]
                if alive:
                    answers[query] = _best(probes[query], alive)
                elif hashes:
                    lost.append(query)
            pending = lost
        return answers

    def candidates(
        self, connection: Connection, probe: NDArray[np.float32], count: int, now: float
    ) -> list[Neighbour]:
        """Return up to `count` live entries nearest to a probe (float32 [d], unit), best first."""
        alive: list[_Live] = []
        for more in (FEW, MORE):
            if not len(self.nodes):
                break
            (proposed,) = propose_more(self.nodes, self.codes, probe[None], count + more)
            live = self._read(connection, proposed.keys.tolist(), now)
            alive = list(live.values())
            if len(alive) >= count or len(proposed.keys) < count + more:
                break
        scored = [_best(probe, [one]) for one in alive]
        return sorted(scored, key=lambda neighbour: -neighbour.score)[:count]

    def _read(
        self, connection: Connection, hashes: Collection[int], now: float
    ) -> dict[int, _Live]:
        """Return the live row of each probe; remove probes without one from the nodes."""
        order = list(hashes)
        found, keys, probes, records = connection.execute(
            _LIVE, (json.dumps(order), self.partition, now)
        ).fetchone()
        live = {}
        if found is not None:
            positions, record_bytes = parse_pairs(found)
            parts = zip(
                split(keys, [KEY_BYTES] * len(positions)),
                np.frombuffer(probes, "<f4").reshape(-1, self.dimensions),
                split(records, record_bytes),
                strict=True,
            )
            live = {order[place]: _Live(*row) for place, row in zip(positions, parts, strict=True)}
        self._remove([value for value in order if value not in live])
        return live

    def _remove(self, hashes: Collection[int]) -> None:
        if not hashes:
            return
        self.nodes.remove(np.array(hashes, np.uint64))
        if not len(self.nodes):
            self.codes = Codes()
            self.nodes, self._most_nodes = self._no_nodes(), 0
        if self._most_nodes > _SHRINK_FROM and len(self.nodes) < _SHRINK_BELOW * self._most_nodes:
            self._begin_anew()

    def _begin_anew(self) -> None:
        """Index all rows again; until then, nothing is found."""
        self.nodes = self._no_nodes()
        self._next = None
        self._most_nodes = self.last_id = self.indexed = 0
        self.ready = False

    def _no_nodes(self) -> Nodes:
        return Graph(self.dimensions) if self.codes.centre is not None else Few(self.dimensions)


class VectorIndexes:
    """The loaded indexes, at most `limit`: the least recently used one is unloaded first.

    Tenants divide the limit (`fairness.shelves`): one with contexts without end unloads its own.

    One thread owns it. Every call names the connection: when the database behind it has been
    replaced, all indexes are dropped.
    """

    def __init__(self, limit: int) -> None:
        self._loaded: dict[bytes, PartitionIndex] = {}
        self._used = FairMap[tuple[str, bytes], None](
            limit, lambda key: key[0], forgotten=lambda key: self._loaded.pop(key[1])
        )
        self._incarnation = 0

    def load(self, connection: Connection, partition: Partition, dimensions: int) -> PartitionIndex:
        """Return the index of a partition's probes of one length; a new one is not `ready`."""
        self._forget_replaced(connection)
        key = partition_id(partition, dimensions)
        index = self._loaded.get(key)
        if index is None:
            index = self._loaded[key] = PartitionIndex(key, dimensions)
        self._used.put((owner_of(partition.namespace_id), key), None)
        return index

    @property
    def loaded(self) -> list[PartitionIndex]:
        """The indexes in memory."""
        return list(self._loaded.values())

    def restore(self, connection: Connection, owner: str, index: PartitionIndex) -> None:
        """Take in an index that was restored from a snapshot."""
        self._forget_replaced(connection)
        self._loaded[index.partition] = index
        self._used.put((owner, index.partition), None)

    @property
    def probes(self) -> int:
        """How many distinct probes can be found."""
        return sum(index.probes for index in self._loaded.values())

    @property
    def size_bytes(self) -> int:
        """The memory that the graphs take."""
        return sum(index.size_bytes for index in self._loaded.values())

    def begin_check(self) -> None:
        """Have every index check its nodes."""
        for index in self._loaded.values():
            index.begin_check()

    def discard(self, connection: Connection, removed: Iterable[Removed]) -> None:
        """Take the probes of removed rows out of the indexes that are loaded."""
        self._forget_replaced(connection)
        hashes: dict[bytes, set[int]] = {}
        for partition, value in removed:
            if value is not None and partition in self._loaded:
                hashes.setdefault(partition, set()).add(value)
        for partition, values in hashes.items():
            self._loaded[partition].discard(connection, values)

    def _forget_replaced(self, connection: Connection) -> None:
        if connection.incarnation != self._incarnation:
            self._loaded.clear()
            self._used.clear()
            self._incarnation = connection.incarnation


def _best(probe: NDArray[np.float32], alive: list[_Live]) -> Neighbour:
    scores = [float(probe @ candidate.probe) for candidate in alive]
    place = max(range(len(alive)), key=scores.__getitem__)
    # Rounding may take the product of two unit vectors to 1.0000001.
    return Neighbour(alive[place].key, alive[place].record, min(1.0, max(-1.0, scores[place])))
