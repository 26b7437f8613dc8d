"""Walks through all entries in Redis, and removes those that purges name."""

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from cacheproxy.stores.protocol import Progress
from cacheproxy.stores.redis.cluster_link import ClusterLink
from cacheproxy.stores.redis.entries import entry_key, entry_name, value_of
from cacheproxy.stores.redis.index import ENTRY_PREFIX, NAMESPACE_FIELD, TAGS_FIELD
from cacheproxy.stores.redis.link import RedisLink, raise_error_in
from cacheproxy.stores.redis.purging.notices import key_scope, tag_scope

_ASK_S = 10.0

_SCAN_NAMES = 512
_REMOVE_NAMES = 4
"""Names per round trip. Removing an entry from an index takes Redis half a millisecond (measured at
20,000 entries), and other clients wait meanwhile."""


class Removal:
    """Finds entries by what is stored with them; every call takes many round trips."""

    def __init__(self, link: RedisLink | ClusterLink) -> None:
        self._link = link

    async def count_namespaces(self) -> Counter[str]:
        """Count every entry, by the `hex_id` of its namespace.

        Raises:
            StoreError: Redis did not answer.
        """
        counts = Counter[str]()
        async for names in self.names():
            commands = [("HGET", name, NAMESPACE_FIELD) for name in names]
            replies = map(value_of, await self._link.ask(commands, timeout_s=_ASK_S))
            counts.update(reply.decode("latin-1") for reply in replies if reply is not None)
        return counts

    async def remove(
        self,
        scopes: AbstractSet[str],
        keys: Sequence[bytes] | None,
        removed: int,
        progress: Progress | None,
    ) -> int:
        """Remove the entries that are in any of the scopes, which are names.

        Looks at the entries of these keys, or at all; returns `removed` and how many they were.
        """
        async for names in self.names(keys):
            named = await self._named(names, scopes)
            for start in range(0, len(named), _REMOVE_NAMES):
                commands = [("DEL", name) for name in named[start : start + _REMOVE_NAMES]]
                for reply in await self._link.ask(commands, timeout_s=_ASK_S):
                    raise_error_in(reply)
                    removed += reply
            if progress is not None:
                progress(removed)
        return removed

    async def names(self, keys: Sequence[bytes] | None = None) -> AsyncIterator[Sequence[bytes]]:
        """Yield the names of all entries in parts, or of those of keys; some may come twice.

        Raises:
            StoreError: Redis did not answer.
        """
        if keys is not None:
            for start in range(0, len(keys), _SCAN_NAMES):
                yield [entry_name(key) for key in keys[start : start + _SCAN_NAMES]]
            return
        for part in self._link.parts:
            cursor = None
            while cursor != 0:
                scan = ("SCAN", cursor or 0, "MATCH", ENTRY_PREFIX + b"*", "COUNT", _SCAN_NAMES)
                (reply,) = await part.ask([scan], timeout_s=_ASK_S)
                raise_error_in(reply)
                cursor = int(reply[0])
                if reply[1]:
                    yield list(dict.fromkeys(reply[1]))

    async def _named(self, names: Sequence[bytes], scopes: AbstractSet[str]) -> list[bytes]:
        """Return the names of those entries that are in any of the scopes."""
        commands = [("HMGET", name, NAMESPACE_FIELD, TAGS_FIELD) for name in names]
        replies = await self._link.ask(commands, timeout_s=_ASK_S)

        def is_named(name: bytes, reply: Any) -> bool:
            fields = value_of(reply)
            if fields is None or fields[0] is None:
                return False
            return not scopes.isdisjoint(scopes_in(_key_in(name), *fields))

        return [name for name, reply in zip(names, replies, strict=True) if is_named(name, reply)]


def _key_in(name: bytes) -> bytes:
    """Return the key of an entry's name; empty if it is not such a name."""
    try:
        return entry_key(name)
    except ValueError:
        return b""


def scopes_in(key: bytes, namespace: bytes, tags: bytes | None) -> list[str]:
    """Return the names of all scopes that an entry with these fields falls under."""
    space = namespace.decode("latin-1")
    names = [space, key_scope(space, key)]
    if tags:
        names += [tag_scope(space, tag) for tag in tags.decode("latin-1").split(",")]
    return names
