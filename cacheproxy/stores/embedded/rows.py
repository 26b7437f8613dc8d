"""The embedded store's SQL for entries: plain functions over a connection.

However many records are read, SQLite returns one row: `group_concat` joins the blobs. The sqlite3
module releases the GIL for every row and has to win it back each time; beside a busy event loop,
2,048 records took 110 ms row by row and take 16 ms joined (measured).
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b, sha256
from itertools import accumulate, pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cacheproxy.errors import StoreError
from cacheproxy.keys import KEY_BYTES, encode_fields, hex_id, owner_of
from cacheproxy.stores.embedded.database import Connection, transaction
from cacheproxy.stores.embedded.uses import Uses
from cacheproxy.stores.protocol import Entry, Partition, unit_probe

WRITE_ROWS = 256
"""Entries per transaction that writes or removes: some 20 ms, for which other jobs wait."""

_SPARED_FOR_ONE = 3

_FREE_PAGES_KEPT = 512
"""8 MiB of free pages are kept in the file for the next writes."""

# The keys are joined in one parameter, 32 bytes each (KEY_BYTES): one statement for any number.
_GET = """
WITH RECURSIVE position (n) AS (
    SELECT 0 UNION ALL SELECT n + 1 FROM position WHERE n + 1 < ?1
)
SELECT
    group_concat(n || ':' || length(record)),
    CAST(group_concat(record, '') AS BLOB)
FROM position CROSS JOIN standing_entries ON key = substr(?2, n * 32 + 1, 32)
WHERE expires_at > ?3
"""

_DELETE = """
WITH RECURSIVE position (n) AS (
    SELECT 0 UNION ALL SELECT n + 1 FROM position WHERE n + 1 < ?1
)
DELETE FROM entries WHERE key IN (SELECT substr(?2, n * 32 + 1, 32) FROM position)
RETURNING key, expires_at, record, partition, probe_hash
"""


class Removed(NamedTuple):
    """What the vector index must know of a removed row; `probe_hash` is None without a probe."""

    partition: bytes
    probe_hash: int | None


class Replaced(NamedTuple):
    """A row that was replaced by another one; whether that has another record, or other times."""

    key: bytes
    is_changed: bool
    row: Removed


@dataclass(frozen=True, slots=True)
class Usage:
    """What the database holds: entries, with expired ones not yet swept, and bytes of pages."""

    entries: int
    live_bytes: int
    free_bytes: int


class Holding(NamedTuple):
    """What one owner holds: entries, and its part of the live bytes."""

    owner: str
    entries: int
    size_bytes: float


class Excess(NamedTuple):
    """How many of an owner's entries have to go."""

    owner: str
    entries: int


FindExcess = Callable[[Usage, Sequence[Holding]], Excess | None]
"""Returns whose entries have to go next, None if nobody's."""


def partition_id(partition: Partition, dimensions: int) -> bytes:
    """Return 24 bytes that identify the probes of one length in one partition.

    The first 16 identify the namespace, so that all of its entries form one range of the index.
    """
    fields: list[str | int] = [partition.model_id, dimensions]
    if partition.context:
        fields.append(hex_id(partition.context))
    model = sha256(encode_fields(*fields)).digest()
    return namespace_bytes(partition.namespace_id) + model[:8]


def namespace_bytes(namespace_id: str) -> bytes:
    """Return 16 bytes that identify a namespace."""
    return bytes.fromhex(hex_id(namespace_id))


def tag_bytes(namespace_id: str, tag: str) -> bytes:
    """Return 32 bytes that identify a tag in one namespace."""
    return namespace_bytes(namespace_id) + bytes.fromhex(hex_id(tag))


def probe_hash(probe: NDArray[np.float32]) -> int:
    """Return a 63-bit hash; probes that are equal in float16, the index's precision, share it."""
    digest = blake2b(probe.astype("<f2").tobytes(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def get_many(connection: Connection, keys: Sequence[bytes], now: float) -> list[bytes | None]:
    """Return each key's live record, or None, in the order of the keys."""
    joined = _joined(keys)
    found, records = connection.execute(_GET, (len(keys), joined, now)).fetchone()
    result: list[bytes | None] = [None] * len(keys)
    if found is not None:
        positions, record_bytes = parse_pairs(found)
        for position, record in zip(positions, split(records, record_bytes), strict=True):
            result[position] = record
    return result


def put_many(connection: Connection, entries: Sequence[Entry]) -> list[Replaced]:
    """Write entries of different keys, inside a transaction; return what they replaced.

    Raises:
        StoreError: an entry breaks a rule of `Entry`.
    """
    rows = [_row(entry) for entry in entries]
    tags = [
        (tag_bytes(entry.partition.namespace_id, tag), entry.key)
        for entry in entries
        for tag in set(entry.tags)
    ]
    joined = _joined([entry.key for entry in entries])
    replaced = connection.execute(_DELETE, (len(entries), joined)).fetchall()
    connection.executemany(
        "INSERT INTO entries"
        " (key, partition, owner, model, context, expires_at, generation, record, probe_hash,"
        " probe) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        rows,
    )
    connection.executemany("INSERT INTO tags (tag, key) VALUES (?, ?)", tags)
    new = {entry.key: (entry.expires_at, entry.record) for entry in entries}
    return [
        Replaced(key, (expires_at, record) != new[key], Removed(*row))
        for key, expires_at, record, *row in replaced
    ]


def remove_expired(connection: Connection, now: float) -> list[Removed]:
    """Remove expired entries, at most WRITE_ROWS; return them."""
    with transaction(connection):
        rows = connection.execute(
            "DELETE FROM entries WHERE id IN (SELECT id FROM entries"
            " WHERE expires_at <= ? ORDER BY expires_at LIMIT ?) RETURNING partition, probe_hash",
            (now, WRITE_ROWS),
        ).fetchall()
    return [Removed(*row) for row in rows]


def evict(connection: Connection, find_excess: FindExcess, uses: Uses) -> list[Removed]:
    """Remove the oldest unused entries of whoever has too many, at most half of WRITE_ROWS.

    For each that goes, at most three are spared for their uses: those cost a write, too.
    """
    usage = measure(connection)
    found = connection.execute("SELECT owner, entries, size FROM totals WHERE entries > 0")
    holdings = [Holding(*row) for row in found]
    whole = sum(holding.size_bytes for holding in holdings) or 1
    per_byte = usage.live_bytes / whole
    excess = find_excess(
        usage, [each._replace(size_bytes=per_byte * each.size_bytes) for each in holdings]
    )
    if excess is None:
        return []
    count = min(WRITE_ROWS // 2, excess.entries)
    with transaction(connection):
        oldest = connection.execute(
            "SELECT id, key FROM entries WHERE owner = ? ORDER BY id LIMIT ?",
            (excess.owner, (1 + _SPARED_FOR_ONE) * count),
        ).fetchall()
        most_spared = len(oldest) - -(-len(oldest) // (1 + _SPARED_FOR_ONE))
        going: list[int] = []
        spared: list[int] = []
        for row, key in oldest:
            if len(going) == count:
                break
            is_spared = len(spared) < most_spared and uses.take(key)
            (spared if is_spared else going).append(row)
        _make_young(connection, spared)
        rows = connection.execute(
            "DELETE FROM entries WHERE id IN (SELECT value FROM json_each(?))"
            " RETURNING partition, probe_hash",
            (json.dumps(going),),
        ).fetchall()
    return [Removed(*row) for row in rows]


def _make_young(connection: Connection, ids: Sequence[int]) -> None:
    """Give entries the ids of new ones: for all that reads by id, they were written again."""
    (last,) = connection.execute(
        "SELECT seq FROM sqlite_sequence WHERE name = 'entries'"
    ).fetchone()
    connection.executemany("UPDATE entries SET id = ? WHERE id = ?", enumerate(ids, last + 1))
    connection.execute(
        "UPDATE sqlite_sequence SET seq = ? WHERE name = 'entries'", (last + len(ids),)
    )


def measure(connection: Connection) -> Usage:
    """Return the usage, from counters that SQLite keeps: constant time, true across processes."""
    entries, page_bytes, pages, free = connection.execute(
        "SELECT (SELECT coalesce(sum(entries), 0) FROM totals),"
        " page_size, page_count, freelist_count"
        " FROM pragma_page_size, pragma_page_count, pragma_freelist_count"
    ).fetchone()
    return Usage(entries, (pages - free) * page_bytes, free * page_bytes)


def count_namespaces(connection: Connection) -> dict[str, int]:
    """Return the number of entries of each namespace, by its `namespace_bytes` in hex."""
    rows = connection.execute(
        "SELECT lower(hex(substr(partition, 1, 16))) AS namespace, count(*)"
        " FROM entries GROUP BY namespace"
    ).fetchall()
    return dict(rows)


def give_back_pages(connection: Connection) -> bool:
    """Shrink the file by a slice of its free pages; return whether there is more to do."""
    (free,) = connection.execute("PRAGMA freelist_count").fetchone()
    if free <= _FREE_PAGES_KEPT:
        return False
    connection.execute("PRAGMA incremental_vacuum(128)").fetchall()
    (left,) = connection.execute("PRAGMA freelist_count").fetchone()
    # An empty file that another program made has no incremental vacuum: it does not shrink.
    return bool(_FREE_PAGES_KEPT < left < free)


def parse_pairs(joined: str) -> tuple[list[int], list[int]]:
    """Return the two columns of `a:b,c:d`, as SQL gives places and lengths."""
    pairs = [pair.split(":") for pair in joined.split(",")]
    return [int(first) for first, _ in pairs], [int(second) for _, second in pairs]


def split(joined: bytes, lengths: Sequence[int]) -> list[bytes]:
    """Return the parts of joined bytes, given their lengths."""
    return [joined[start:end] for start, end in pairwise(accumulate(lengths, initial=0))]


def _joined(keys: Sequence[bytes]) -> bytes:
    if any(len(key) != KEY_BYTES for key in keys):
        raise StoreError(f"a key is not {KEY_BYTES} bytes long", "invalid")
    return b"".join(keys)


_Row = tuple[bytes, bytes, str, bytes, bytes | None, float, int, bytes, int | None, bytes | None]


def _row(entry: Entry) -> _Row:
    partition = entry.partition
    owner, model = owner_of(partition.namespace_id), bytes.fromhex(partition.model_id)
    context = bytes.fromhex(hex_id(partition.context)) if partition.context else None
    fixed = owner, model, context, entry.expires_at, entry.generation, entry.record
    if entry.probe is None:
        return entry.key, partition_id(partition, 0), *fixed, None, None
    probe = unit_probe(entry.probe)
    where = partition_id(partition, probe.size)
    return entry.key, where, *fixed, probe_hash(probe), probe.astype("<f4").tobytes()
