"""Lookups of records by key in Redis, in one round trip however many keys there are."""

from collections.abc import Sequence
from typing import Any

from redis import exceptions

from cacheproxy.errors import StoreError
from cacheproxy.stores.redis.cluster_link import ClusterLink, NodeAway
from cacheproxy.stores.redis.entries import RECORD_FIELD, entry_name, read_stored, value_of
from cacheproxy.stores.redis.index import NAMESPACE_FIELD, TAGS_FIELD
from cacheproxy.stores.redis.link import Command, RedisLink
from cacheproxy.stores.redis.purges import RedisPurges

_LOOKUP_S = 5.0
"""The longest time for a lookup; callers usually set a shorter one."""


class RedisRecords:
    """Reads records, and checks them against running purges."""

    def __init__(self, link: RedisLink | ClusterLink, purging: RedisPurges) -> None:
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
        if not self._purging.is_any_active:
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
