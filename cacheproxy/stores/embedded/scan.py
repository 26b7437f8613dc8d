"""Reads every entry of the embedded store, in slices by their ids, which only rise.

An entry that is rewritten meanwhile gets a higher id, so that it is read later, and never missed.
"""

import json
from collections.abc import AsyncIterator, Collection, Mapping
from typing import NamedTuple

import numpy as np

from cacheproxy.errors import StoreError
from cacheproxy.keys import Hashed, hex_id
from cacheproxy.stores.calls import Calls
from cacheproxy.stores.embedded.database import Connection
from cacheproxy.stores.embedded.database_thread import DatabaseThread
from cacheproxy.stores.protocol import Entry, Partition

_ROWS = 256
"""Rows a slice, read or passed over: some 10 ms, for which the thread's other jobs wait."""

_LAST = "SELECT max(id) FROM (SELECT id FROM entries WHERE id > ? ORDER BY id LIMIT ?)"

_ENTRIES = """
SELECT
    key, lower(hex(substr(partition, 1, 16))) AS namespace, lower(hex(model)), lower(hex(context)),
    expires_at, generation, record, probe,
    (SELECT group_concat(lower(hex(substr(tag, 17))), ',') FROM tags
     WHERE tags.key = standing_entries.key)
FROM standing_entries
WHERE """

_SLICE = f"""{_ENTRIES} id > ?1 AND id <= ?2 AND expires_at > ?3
    AND (?4 IS NULL OR namespace IN (SELECT value FROM json_each(?4)))
ORDER BY id
"""  # noqa: S608

_ONE = f"{_ENTRIES} key = ?1 AND expires_at > ?2"


class _Slice(NamedTuple):
    """Some entries, and the id of the last row; None after the last slice."""

    entries: list[Entry]
    last: int | None
    incarnation: int


class Scan:
    """One scan of all live entries, or of those of some namespaces."""

    def __init__(self, namespace_ids: Collection[str] | None) -> None:
        self._ids = {hex_id(one): one for one in namespace_ids or ()}
        self._wanted = None if namespace_ids is None else json.dumps(list(self._ids))

    async def parts(
        self, thread: DatabaseThread, calls: Calls, now: float
    ) -> AsyncIterator[list[Entry]]:
        """Yield the entries in parts; raises `StoreError`."""
        last: int | None = 0
        incarnation = None
        while last is not None:
            with calls.one():
                found = await thread.run(self._read, last, now)
            if incarnation not in (None, found.incarnation):
                raise StoreError("the store's file was replaced while it was read", "unavailable")
            last, incarnation = found.last, found.incarnation
            if found.entries:
                yield found.entries

    def _read(self, connection: Connection, after: int, now: float) -> _Slice:
        (last,) = connection.execute(_LAST, (after, _ROWS)).fetchone()
        if last is None:
            return _Slice([], None, connection.incarnation)
        rows = connection.execute(_SLICE, (after, last, now, self._wanted)).fetchall()
        entries = [_entry(self._ids, *row) for row in rows]
        return _Slice(entries, last, connection.incarnation)


def read_entry(connection: Connection, key: bytes, now: float) -> Entry | None:
    """Return the live entry of a key."""
    row = connection.execute(_ONE, (key, now)).fetchone()
    return None if row is None else _entry({}, *row)


def _entry(
    ids: Mapping[str, str],
    key: bytes,
    namespace: str,
    model: str,
    context: str,
    expires_at: float,
    generation: int,
    record: bytes,
    probe: bytes | None,
    tags: str | None,
) -> Entry:
    return Entry(
        key,
        Partition(ids.get(namespace, Hashed(namespace)), Hashed(model), Hashed(context)),
        record,
        expires_at,
        tuple(map(Hashed, tags.split(","))) if tags else (),
        None if probe is None else np.frombuffer(probe, "<f4"),
        generation,
    )
