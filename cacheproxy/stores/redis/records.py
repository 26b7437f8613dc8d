"""Reads entries in Redis: records by key, in one round trip however many, and all entries."""

import time
from collections.abc import AsyncIterator, Collection, Sequence
from typing import Any

from redis import exceptions

from cacheproxy.errors import StoreError
from cacheproxy.keys import Hashed, hex_id
from cacheproxy.stores.protocol import Entry
from cacheproxy.stores.redis.cluster_link import ClusterLink, NodeAway
from cacheproxy.stores.redis.entries import (
    RECORD_FIELD,
    entry_key,
    entry_name,
    read_stored,
    scanned,
    value_of,
)
from cacheproxy.stores.redis.index import NAMESPACE_FIELD, TAGS_FIELD
from cacheproxy.stores.redis.link import Command, RedisLink
from cacheproxy.stores.redis.purging.purges import RedisPurges

_LOOKUP_S = 5.0
"""The longest time for a lookup; callers usually set a shorter one."""

_SCAN_ENTRIES = 128
"""Entries per round trip of a scan: some 400 kB, for which other clients of Redis wait."""

_NAMESPACE = NAMESPACE_FIELD.encode()


class RedisRecords:
    """Reads records, and checks them against running purges."""

    def __init__(self, link: RedisLink | ClusterLink, purging: RedisPurges) -> None:
        # An export must not pass over a node in silence, as a lookup may.
        self._link = link
        self._ask = link.ask_open if isinstance(link, ClusterLink) else link.ask
        self._purging = purging

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return each key's live record, or None, in the order of the keys.

        Raises:
            StoreError: Redis did not answer.
        """
        if not keys:
            return []
        commands: list[Command]
        if not self._purging.is_any_known:
            commands = [("HGET", entry_name(key), RECORD_FIELD) for key in keys]
            replies = await self._ask(commands, timeout_s=_LOOKUP_S)
            return [_record(reply) for reply in replies]
        fields = RECORD_FIELD, NAMESPACE_FIELD, TAGS_FIELD
        commands = [("HMGET", entry_name(key), *fields) for key in keys]
        replies = await self._ask(commands, timeout_s=_LOOKUP_S)
        return [self._checked(key, reply) for key, reply in zip(keys, replies, strict=True)]

    def _checked(self, key: bytes, reply: Any) -> bytes | None:
        """Return an entry's record; None if there is none or a purge names it."""
        values = _value(reply)
        if values is None or None in values[:2]:
            return None
        record, namespace, tags = values
        stored = read_stored(record)
        is_purged = self._purging.forbid(key, namespace, tags, stored.generation)
        return None if is_purged else stored.record

    async def entry(self, key: bytes) -> Entry | None:
        """Return the live entry of a key with all that is kept beside its record.

        Raises:
            StoreError: Redis did not answer.
        """
        found = await self._read([entry_name(key)], {})
        return found[0] if found else None

    async def scan(self, namespace_ids: Collection[str] | None) -> AsyncIterator[list[Entry]]:
        """Yield all live entries in parts, or those of some namespaces; some may come twice.

        Raises:
            StoreError: Redis did not answer.
        """
        ids = {hex_id(one).encode(): one for one in namespace_ids or ()}
        async for found in self._purging.removal.names():
            for start in range(0, len(found), _SCAN_ENTRIES):
                names = found[start : start + _SCAN_ENTRIES]
                if namespace_ids is not None:
                    names = await self._of_namespaces(names, ids)
                if names and (entries := await self._read(names, ids)):
                    yield entries

    async def _of_namespaces(
        self, names: Sequence[bytes], ids: Collection[bytes]
    ) -> Sequence[bytes]:
        commands: list[Command] = [("HGET", name, NAMESPACE_FIELD) for name in names]
        replies = await self._link.ask(commands, timeout_s=_LOOKUP_S)
        return [name for name, reply in zip(names, replies, strict=True) if _value(reply) in ids]

    async def _read(self, names: Sequence[bytes], ids: dict[bytes, str]) -> list[Entry]:
        commands: list[Command] = []
        for name in names:
            commands += [("HGETALL", name), ("PEXPIRETIME", name)]
        replies = await self._link.ask(commands, timeout_s=_LOOKUP_S)
        entries, now = [], time.time()
        for name, whole, expiry in zip(names, replies[::2], replies[1::2], strict=True):
            # In this order: an entry that has an expiry after it was read was whole.
            values, expires_ms = _value(whole), _value(expiry)
            if not values or expires_ms is None or expires_ms <= 1000 * now:
                continue
            fields = dict(zip(values[::2], values[1::2], strict=True))
            namespace, tags = fields.get(_NAMESPACE), fields.get(TAGS_FIELD.encode())
            if namespace is None or RECORD_FIELD.encode() not in fields:
                continue
            key = entry_key(name)
            namespace_id = ids.get(namespace) or Hashed(namespace.decode("latin-1"))
            entry = scanned(key, namespace_id, fields, expires_ms / 1000)
            if not self._purging.forbid(key, namespace, tags, entry.generation):
                entries.append(entry)
        return entries


def _value(reply: Any) -> Any:
    # In a cluster, the entry has moved to another node, where the next lookup finds it, or its node
    # does not answer.
    return None if isinstance(reply, exceptions.AskError | NodeAway) else value_of(reply)


def _record(reply: Any) -> bytes | None:
    value = _value(reply)
    if value is None:
        return None
    if not isinstance(value, bytes):
        raise StoreError(f"Redis: unexpected reply to HGET: {value!r:.50}", "protocol")
    return read_stored(value).record
