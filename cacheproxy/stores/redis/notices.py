"""Notices in Redis about purges and replaced entries, and the floors that purges leave.

A scope has a name: the `hex_id` of its namespace, with a tag or a key behind it. Floors are a ZSET
of the scopes that were purged within the last hour, by the generation of the newest purge: a write
whose work began before that is refused.
"""

import base64
from collections.abc import Sequence
from typing import Any

import msgspec

from cacheproxy.keys import hex_id
from cacheproxy.stores.protocol import Entry
from cacheproxy.stores.purges import Scope
from cacheproxy.stores.redis.link import Command, raise_error_in

CHANNEL = "cp:notices"
FLOORS = "cp:{shared}:floors"


class Purged(msgspec.Struct, frozen=True, tag="purged"):
    """A purge is in force; `tag` is its `hex_id`."""

    generation: int
    namespace_id: str
    tag: str | None
    key: bytes | None


class Finished(msgspec.Struct, frozen=True, tag="finished"):
    """All purges of a scope up to this generation are complete."""

    generation: int
    scope: str


class Replaced(msgspec.Struct, frozen=True, tag="replaced"):
    """The entries of these keys were replaced."""

    writer: str
    keys: list[bytes]


Notice = Purged | Finished | Replaced

_DECODER: msgspec.json.Decoder[Notice] = msgspec.json.Decoder(Notice)


def read_notice(message: bytes) -> Notice:
    """Return the notice in a message; raises ValueError if there is none."""
    return _DECODER.decode(message)


class Floors:
    """Checks entries against the floors: the command to send, and how to read its reply."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self._entries = entries
        self._scopes = [scopes_of(entry) for entry in entries]
        self._names = sorted({name for each in self._scopes for name in each})

    @property
    def question(self) -> Command:
        """The command that reads the floors of all scopes that the entries fall under."""
        return "ZMSCORE", FLOORS, *self._names

    def allow(self, scores: Any) -> list[bool]:
        """Return for each entry whether no purge forbids it.

        Args:
            scores: the reply to `question`.

        Raises:
            StoreError: the reply is an error.
        """
        raise_error_in(scores)
        floors = {
            name: int(float(score))
            for name, score in zip(self._names, scores, strict=True)
            if score is not None
        }
        return [
            all(floors.get(name, 0) <= entry.generation for name in each)
            for entry, each in zip(self._entries, self._scopes, strict=True)
        ]


def name_of(notice: Purged) -> str:
    """Return the name of a purge's scope, of letters, digits, `:`, `+`, `/`."""
    namespace = hex_id(notice.namespace_id)
    if notice.key is not None:
        return key_scope(namespace, notice.key)
    return namespace if notice.tag is None else tag_scope(namespace, notice.tag)


def purged(scope: Scope, generation: int) -> Purged:
    """Return the notice of a purge."""
    tag = None if scope.tag is None else hex_id(scope.tag)
    return Purged(generation, scope.namespace_id, tag, scope.key)


def publish(notice: Notice) -> Command:
    """Return the command that publishes a notice."""
    return "PUBLISH", CHANNEL, msgspec.json.encode(notice)


def scope_name(scope: Scope) -> str:
    """Return the scope's name, of letters, digits, `:`, `+`, `/`."""
    return name_of(purged(scope, 0))


def scopes_of(entry: Entry) -> list[str]:
    """Return the names of all scopes that an entry falls under."""
    namespace = hex_id(entry.partition.namespace_id)
    tags = [tag_scope(namespace, hex_id(tag)) for tag in entry.tags]
    return [namespace, key_scope(namespace, entry.key), *tags]


def tag_scope(namespace: str, tag: str) -> str:
    """Return the name of a tag in a namespace, both given as `hex_id`."""
    return f"{namespace}:tag:{tag}"


def key_scope(namespace: str, key: bytes) -> str:
    """Return the name of a key in a namespace, which is given as `hex_id`."""
    return f"{namespace}:key:{base64.b64encode(key).decode()}"
