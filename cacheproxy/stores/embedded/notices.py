"""Notices between the processes on one SQLite file: rows about purges and replaced entries.

A purge begins as a row, and then removes entries in slices. While it runs, lookups leave out the
entries that it names (view `standing_entries`); and for an hour, a write of an entry whose work
began before the purge is refused because of it. A purge's generation is the time in microseconds,
or one more than the last generation: it rises even if rows, or the file, were removed in between.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cacheproxy.keys import KEY_BYTES
from cacheproxy.stores.embedded.database import Connection, transaction
from cacheproxy.stores.embedded.rows import WRITE_ROWS, Removed, namespace_bytes, split, tag_bytes
from cacheproxy.stores.protocol import Entry
from cacheproxy.stores.purges import PurgeNote, Scope

_PURGES_KEPT_S = 3600.0
"""The longest that work may take to reach the store: inference, and the write-back queue."""

REPLACEMENTS_KEPT_S = 60.0
"""A process that has not polled for longer may have missed a notice."""

_ABANDONED_S = 60.0
"""A running purge that has removed nothing for so long was cut short: a slice takes some 20 ms."""

_NEW_GENERATION = """
SELECT max(?, 1 + coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'purges'), 0))
"""

_LATER = """
SELECT namespace, tag, key, max(generation) FROM purges WHERE generation > ?
GROUP BY namespace, tag, key
"""

_REMOVE_NAMESPACE = """
DELETE FROM entries WHERE id IN (
    SELECT id FROM entries WHERE partition BETWEEN ? AND ? AND generation < ? LIMIT ?
) RETURNING partition, probe_hash
"""

_REMOVE_TAG = """
DELETE FROM entries WHERE id IN (
    SELECT id FROM tags CROSS JOIN entries ON entries.key = tags.key
    WHERE tags.tag = ? AND generation < ? LIMIT ?
) RETURNING partition, probe_hash
"""

_REMOVE_KEY = """
DELETE FROM entries WHERE key = ? AND partition BETWEEN ? AND ? AND generation < ?
RETURNING partition, probe_hash
"""


@dataclass(frozen=True, slots=True)
class Purge:
    """A row of `purges`; `namespace`, `tag` and `key` are as in the other tables."""

    generation: int
    namespace_id: str
    namespace: bytes
    tag: bytes | None
    key: bytes | None

    @property
    def subject(self) -> Scope:
        """What processes have to forget: without the tag, whose bytes they cannot compare."""
        return Scope(self.namespace_id, key=self.key)


@dataclass(frozen=True, slots=True)
class Place:
    """How far a process has read: a generation, and the id of a replacement."""

    generation: int = 0
    replacement: int = 0


@dataclass(frozen=True, slots=True)
class News:
    """The notices after a place; `replaced` leaves out the reader's own."""

    purges: list[Purge]
    replaced: list[bytes]
    place: Place


def begin_purge(connection: Connection, scope: Scope, now: float) -> Purge:
    """Put a purge into force, and return it."""
    with transaction(connection):
        (generation,) = connection.execute(_NEW_GENERATION, (int(1e6 * now),)).fetchone()
        purge = Purge(
            generation=generation,
            namespace_id=scope.namespace_id,
            namespace=namespace_bytes(scope.namespace_id),
            tag=None if scope.tag is None else tag_bytes(scope.namespace_id, scope.tag),
            key=scope.key,
        )
        connection.execute(
            "INSERT INTO purges"
            " (generation, namespace_id, namespace, tag, key, made_at, is_running)"
            " VALUES (?, ?, ?, ?, ?, ?, TRUE)",
            (generation, purge.namespace_id, purge.namespace, purge.tag, purge.key, now),
        )
    return purge


def remove_some(connection: Connection, purge: Purge, now: float) -> list[Removed]:
    """Remove entries that a purge names, at most WRITE_ROWS; once it returns none, none are left.

    Each call also shows all processes that the purge is making progress.
    """
    partitions = purge.namespace + b"\0" * 8, purge.namespace + b"\xff" * 8
    with transaction(connection):
        connection.execute(
            "UPDATE purges SET made_at = ? WHERE generation = ?", (now, purge.generation)
        )
        if purge.key is not None:
            found = connection.execute(_REMOVE_KEY, (purge.key, *partitions, purge.generation))
        elif purge.tag is not None:
            found = connection.execute(_REMOVE_TAG, (purge.tag, purge.generation, WRITE_ROWS))
        else:
            arguments = (*partitions, purge.generation, WRITE_ROWS)
            found = connection.execute(_REMOVE_NAMESPACE, arguments)
        return [Removed(*row) for row in found.fetchall()]


def finish_purge(connection: Connection, purge: Purge) -> None:
    """Mark a purge as complete: lookups no longer check entries against it."""
    connection.execute(
        "UPDATE purges SET is_running = FALSE WHERE generation = ?", (purge.generation,)
    )


def abandoned_purges(connection: Connection, now: float) -> list[Purge]:
    """Return running purges without recent progress: their process may have been killed."""
    rows = connection.execute(
        "SELECT generation, namespace_id, namespace, tag, key FROM purges"
        " WHERE is_running AND made_at < ?",
        (now - _ABANDONED_S,),
    ).fetchall()
    return [Purge(*row) for row in rows]


def allowed(connection: Connection, entries: Iterable[Entry]) -> list[Entry]:
    """Return the entries that no purge forbids; of equal keys, the last one only.

    Call it in the transaction that writes them.
    """
    latest = {entry.key: entry for entry in entries}
    oldest = min(entry.generation for entry in latest.values())
    later: dict[tuple[bytes, bytes | None, bytes | None], int] = {
        (namespace, tag, key): generation
        for namespace, tag, key, generation in connection.execute(_LATER, (oldest,)).fetchall()
    }
    if not later:
        return list(latest.values())

    def is_allowed(entry: Entry) -> bool:
        namespace_id = entry.partition.namespace_id
        namespace = namespace_bytes(namespace_id)
        scopes: list[tuple[bytes, bytes | None, bytes | None]]
        scopes = [(namespace, None, None), (namespace, None, entry.key)]
        scopes += [(namespace, tag_bytes(namespace_id, tag), None) for tag in entry.tags]
        return all(later.get(scope, 0) <= entry.generation for scope in scopes)

    return [entry for entry in latest.values() if is_allowed(entry)]


def purged_since(connection: Connection, generation: int) -> list[PurgeNote]:
    """Return the purges with a higher generation that are still noted."""
    return [
        PurgeNote(newest, namespace.hex(), None if tag is None else tag[16:].hex(), key)
        for namespace, tag, key, newest in connection.execute(_LATER, (generation,)).fetchall()
    ]


def announce_replaced(
    connection: Connection, keys: Sequence[bytes], writer: bytes, now: float
) -> None:
    """Write a notice that the entries of these keys were replaced."""
    if keys:
        connection.execute(
            "INSERT INTO replacements (writer, keys, made_at) VALUES (?, ?, ?)",
            (writer, b"".join(keys), now),
        )


def current_place(connection: Connection) -> Place:
    """Return the place after the newest notices."""
    found = dict(connection.execute("SELECT name, seq FROM sqlite_sequence").fetchall())
    return Place(found.get("purges", 0), found.get("replacements", 0))


def read_news(connection: Connection, place: Place, reader: bytes) -> News:
    """Return the notices after the place."""
    purges = [
        Purge(*row)
        for row in connection.execute(
            "SELECT generation, namespace_id, namespace, tag, key FROM purges"
            " WHERE generation > ? ORDER BY generation",
            (place.generation,),
        ).fetchall()
    ]
    replacements = connection.execute(
        "SELECT id, writer, keys FROM replacements WHERE id > ? ORDER BY id", (place.replacement,)
    ).fetchall()
    replaced = [
        key
        for _, writer, keys in replacements
        if writer != reader
        for key in split(keys, [KEY_BYTES] * (len(keys) // KEY_BYTES))
    ]
    return News(
        purges,
        replaced,
        Place(
            purges[-1].generation if purges else place.generation,
            replacements[-1][0] if replacements else place.replacement,
        ),
    )


def forget_old(connection: Connection, now: float) -> None:
    """Remove notices that no process can need any more."""
    with transaction(connection):
        connection.execute(
            "DELETE FROM purges WHERE NOT is_running AND made_at < ?", (now - _PURGES_KEPT_S,)
        )
        connection.execute(
            "DELETE FROM replacements WHERE made_at < ?", (now - REPLACEMENTS_KEPT_S,)
        )
