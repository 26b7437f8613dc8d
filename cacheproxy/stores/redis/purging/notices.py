"""What processes tell each other over Redis about purges and replaced entries.

    cp:notices  the channel on which notices are published, as JSON

A notice names a scope by the same string that `purges` uses for it in Redis.
"""

import base64
from typing import Annotated

import msgspec
from msgspec import Meta

from cacheproxy.keys import hex_id
from cacheproxy.stores.protocol import Entry
from cacheproxy.stores.purges import PurgeNote, Scope
from cacheproxy.stores.redis.link import Command

CHANNEL = "cp:notices"


Generation = Annotated[int, Meta(ge=0, le=2**63 - 1)]
"""A purge's number. A greater one would not fit into the entries that are written after it."""


class Purged(msgspec.Struct, frozen=True, tag="purged"):
    """A purge is in force; `tag` is its `hex_id`."""

    generation: Generation
    namespace_id: str
    tag: str | None
    key: bytes | None

    @classmethod
    def of(cls, scope: Scope, generation: int) -> "Purged":
        """Return the notice of a purge of the scope."""
        tag = None if scope.tag is None else hex_id(scope.tag)
        return cls(generation, scope.namespace_id, tag, scope.key)

    @property
    def scope_name(self) -> str:
        """The name of the purge's scope, as `scope_name` returns it."""
        namespace = hex_id(self.namespace_id)
        if self.key is not None:
            return key_scope(namespace, self.key)
        return namespace if self.tag is None else tag_scope(namespace, self.tag)


class Finished(msgspec.Struct, frozen=True, tag="finished"):
    """All purges of a scope up to this generation are complete."""

    generation: Generation
    scope: str


class Replaced(msgspec.Struct, frozen=True, tag="replaced"):
    """The entries of these keys were replaced."""

    writer: str
    keys: list[bytes]


Notice = Purged | Finished | Replaced

_DECODER: msgspec.json.Decoder[Notice] = msgspec.json.Decoder(Notice)


def parse_notice(message: bytes) -> Notice:
    """Return the notice in a message; raises ValueError if the message is not one of ours."""
    try:
        return _DECODER.decode(message)
    except RecursionError:
        raise ValueError("a message that is nested without end is no notice") from None


def publish(notice: Notice) -> Command:
    """Return the command that sends a notice to every process."""
    return "PUBLISH", CHANNEL, msgspec.json.encode(notice)


def scope_name(scope: Scope) -> str:
    """Return the scope's name in floors and running purges: letters, digits, `:`, `+`, `/`, `=`."""
    return Purged.of(scope, 0).scope_name


def scopes_of(entry: Entry) -> list[str]:
    """Return the names of all scopes that an entry falls under."""
    namespace = hex_id(entry.partition.namespace_id)
    tags = [tag_scope(namespace, hex_id(tag)) for tag in entry.tags]
    return [namespace, key_scope(namespace, entry.key), *tags]


def tag_scope(namespace: str, tag: str) -> str:
    """Return the name of a tag's scope; both arguments are `hex_id`s."""
    return f"{namespace}:tag:{tag}"


def key_scope(namespace: str, key: bytes) -> str:
    """Return the name of the scope of one entry; `namespace` is a `hex_id`."""
    return f"{namespace}:key:{base64.b64encode(key).decode()}"


def note_of(name: str, generation: int) -> PurgeNote | None:
    """Return the note of a purge with a scope's name; None if it is not such a name."""
    namespace, _, rest = name.partition(":")
    kind, _, which = rest.partition(":")
    if not rest:
        return PurgeNote(generation, namespace)
    if kind == "tag":
        return PurgeNote(generation, namespace, tag=which)
    if kind != "key":
        return None
    try:
        return PurgeNote(generation, namespace, key=base64.b64decode(which, validate=True))
    except ValueError:
        return None
