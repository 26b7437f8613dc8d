"""The form of an entry in Redis: one HASH under a name made from its key, always with a TTL.

The `record` field begins with the entry's generation, so that a reader can check it against purges,
and with what stands for its model, so that it can be moved to another store. In a field of its own
each of them would take 60 bytes per entry.
"""

import math
import re
import struct
from binascii import a2b_base64, b2a_base64
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from redis import exceptions

from cacheproxy.errors import StoreError
from cacheproxy.keys import KEY_BYTES, Hashed, hex_id
from cacheproxy.stores.protocol import MODEL_CHARACTERS, Entry, Partition, unit_probe
from cacheproxy.stores.redis.index import ENTRY_PREFIX, NAMESPACE_FIELD, TAGS_FIELD, ProbeIndex
from cacheproxy.stores.redis.link import Command, raise_error_in

RECORD_FIELD = "record"

_HEAD = struct.Struct(f"<Q{MODEL_CHARACTERS // 2}s")

_CONTEXT = "c"
_CONTEXT_CHARACTERS = 33
"""The tag of a context begins with a letter more than clients' tags, 32 hex characters."""

_probe_index = lru_cache(64)(ProbeIndex)
"""Cached, because its names are hashes."""


class Stored(NamedTuple):
    """What a record field holds: generation, the id of the model, and the record."""

    generation: int
    model_id: bytes
    record: bytes


def entry_name(key: bytes) -> bytes:
    """Return the name of the HASH.

    Raises:
        StoreError: the key has another length.
    """
    if len(key) != KEY_BYTES:
        raise StoreError(f"a key is not {KEY_BYTES} bytes long", "invalid")
    # Base64, not hex: Redis keeps each name twice, and this saves 75 bytes per entry.
    return ENTRY_PREFIX + b2a_base64(key, newline=False).rstrip(b"=")


def entry_key(name: bytes) -> bytes:
    """Return the key of an entry's name."""
    return a2b_base64(name.removeprefix(ENTRY_PREFIX) + b"=")


def write_commands(entry: Entry) -> list[Command]:
    """Return the three commands that replace the entry, for a transaction.

    HSETEX would be one command, but it came with Redis 8 and gives a TTL to fields, not to the key;
    and some operators forbid scripts.
    """
    name = entry_name(entry.key)
    head = _HEAD.pack(entry.generation, bytes.fromhex(entry.partition.model_id))
    fields: list[str | bytes] = [RECORD_FIELD, head + entry.record]
    fields += [NAMESPACE_FIELD, hex_id(entry.partition.namespace_id)]
    tags = {hex_id(tag) for tag in entry.tags}
    if entry.partition.context:
        tags.add(context_tag(entry.partition.context))
    if tags:
        fields += [TAGS_FIELD, ",".join(sorted(tags))]
    if entry.probe is not None:
        field = index_of(entry.partition, len(entry.probe)).field
        fields += [field, unit_probe(entry.probe).astype("<f2").tobytes()]
    return [
        ("DEL", name),
        ("HSET", name, *fields),
        ("PEXPIREAT", name, int(1000 * entry.expires_at)),
    ]


def index_of(partition: Partition, dimensions: int) -> ProbeIndex:
    """Return the index of a partition's probes of one length.

    All contexts share one index, with a tag for each: there may be one context per conversation.
    """
    contexts = f"{partition.model_id}:contexts"
    return _probe_index(contexts if partition.context else partition.fingerprint, dimensions)


def context_tag(context: str) -> str:
    """Return the tag that marks the entries of a context; clients cannot set this tag."""
    return _CONTEXT + hex_id(context)


def scanned(key: bytes, namespace_id: str, fields: dict[bytes, bytes], expires_at: float) -> Entry:
    """Return the entry that a whole HASH holds; what is hashed there is `Hashed`."""
    stored = read_stored(fields[RECORD_FIELD.encode()])
    tags, context = [], ""
    for tag in fields.get(TAGS_FIELD.encode(), b"").decode("latin-1").split(","):
        if (marked := context_of(tag)) is not None:
            context = marked
        elif tag:
            tags.append(Hashed(tag))
    probe = next((value for name, value in fields.items() if name.startswith(b"probe_")), None)
    return Entry(
        key,
        Partition(namespace_id, Hashed(stored.model_id.hex()), context),
        stored.record,
        expires_at,
        tuple(tags),
        None if probe is None else np.frombuffer(probe, "<f2").astype(np.float32),
        stored.generation,
    )


def context_of(tag: str) -> Hashed | None:
    """Return the context that a tag marks; None if it is a client's tag."""
    return Hashed(tag[1:]) if len(tag) == _CONTEXT_CHARACTERS else None


def read_stored(field: bytes) -> Stored:
    """Return what a record field holds; a field that is too short counts as empty."""
    if len(field) < _HEAD.size:
        return Stored(0, b"", b"")
    generation, model = _HEAD.unpack_from(field)
    return Stored(generation, model, field[_HEAD.size :])


def value_of(reply: Any) -> Any:
    """Return the reply to a read of one HASH; None if the name holds a value of another type.

    Raises:
        StoreError: the reply is another error.
    """
    if isinstance(reply, exceptions.ResponseError) and str(reply).startswith("WRONGTYPE"):
        return None  # a miss; the next write replaces the value
    raise_error_in(reply)
    return reply


def used_memory(reply: Any) -> float:
    """Return the bytes of memory from INFO's reply; NaN if the user may not run INFO."""
    found = re.search(rb"used_memory:(\d+)", reply) if isinstance(reply, bytes) else None
    return int(found.group(1)) if found else math.nan
