"""Records: the fixed binary form in which stores keep an entry's payload.

    magic 4 | namespace 16 | key 32 | content | crc32 u32 over all of the above

A record names the entry that it belongs to, so that a mixed-up reply, a foreign value or flipped
bits are a miss and never somebody else's answer. Decoding allocates nothing that the data's own
length does not bound, and runs no code from it (no pickle, no eval).

An embedding has the magic "CPR1" and this content, as all else little-endian; `chat.record` has
that of completions:

    created_at f64 | expires_at f64 | tokens u32 | dim u32 | vector: dim x float32
"""

import struct
import zlib
from typing import NamedTuple, Protocol

import numpy as np

from cacheproxy.errors import RecordError

OWNER = "<4s16s32s"
"""How the header of every form begins: magic, namespace, key."""

_MAGIC = b"CPR1"
_HEADER = struct.Struct(OWNER + "ddII")
_CHECKSUM = struct.Struct("<I")

_SEALED = 0x2144DF1C
"""The CRC-32 of anything that ends in its own CRC-32, little-endian: a constant of the CRC."""


class Record(Protocol):
    """What the tiers know of any entry's payload, whatever route it belongs to.

    Attributes:
        namespace_id: 32 hex characters.
        key: the exact tier's key, 32 bytes.
        created_at: Unix time at which inference answered, seconds.
        expires_at: Unix time from which the entry may not be served, seconds.
        size_bytes: of the payload.
    """

    @property
    def namespace_id(self) -> str: ...
    @property
    def key(self) -> bytes: ...
    @property
    def created_at(self) -> float: ...
    @property
    def expires_at(self) -> float: ...
    @property
    def size_bytes(self) -> int: ...


class EmbeddingRecord(NamedTuple):
    """One text's cached embedding.

    Attributes:
        namespace_id: 32 hex characters.
        key: the exact tier's key, 32 bytes.
        created_at: Unix time at which inference answered, seconds.
        expires_at: Unix time from which the entry may not be served, seconds.
        tokens: tokens that the model read for this text.
        vector: float32 little-endian [dimensions], as raw bytes.
    """

    namespace_id: str
    key: bytes
    created_at: float
    expires_at: float
    tokens: int
    vector: bytes

    @property
    def size_bytes(self) -> int:
        """The vector's bytes."""
        return len(self.vector)


def pack(record: EmbeddingRecord) -> bytes:
    """Return the record's bytes."""
    namespace_id, key, created_at, expires_at, tokens, vector = record
    namespace, dimensions = bytes.fromhex(namespace_id), len(vector) // 4
    header = _HEADER.pack(_MAGIC, namespace, key, created_at, expires_at, tokens, dimensions)
    return seal(header + vector)


def unpack(data: bytes, *, namespace_id: str, key: bytes, dimensions: int) -> EmbeddingRecord:
    """Return the record, checked to be whole, of this namespace's key, and a usable vector.

    Raises:
        RecordError: anything else; the caller treats the entry as a miss.
    """
    body = unseal(data, _MAGIC, namespace_id=namespace_id, key=key)
    if len(body) != _HEADER.size + 4 * dimensions:
        raise RecordError(f"a record of {len(data)} bytes cannot hold {dimensions} dimensions")
    _, _, _, created_at, expires_at, tokens, stored = _HEADER.unpack_from(body)
    if stored != dimensions:
        raise RecordError("the record belongs to another model")
    vector = body[_HEADER.size :]
    if not is_usable(np.frombuffer(vector, "<f4")):
        raise RecordError("the record's vector is not finite or has no direction")
    return EmbeddingRecord(namespace_id, key, created_at, expires_at, tokens, vector)


def dimensions_in(data: bytes) -> int | None:
    """Return the dimensions that an embedding's record says; None if it is another record."""
    if not data.startswith(_MAGIC) or len(data) < _HEADER.size:
        return None
    return int(_HEADER.unpack_from(data)[-1])


def seal(body: bytes) -> bytes:
    """Return a record's bytes: the body, which begins as `OWNER` says, and its checksum."""
    return body + _CHECKSUM.pack(zlib.crc32(body))


def unseal(data: bytes, magic: bytes, *, namespace_id: str, key: bytes) -> bytes:
    """Return a record's body, checked to be whole, of this form, and of this namespace's key.

    Raises:
        RecordError: anything else.
    """
    if not data.startswith(magic):
        raise RecordError("not a record of this form and version")
    if zlib.crc32(data) != _SEALED:
        raise RecordError("the record's checksum does not match")
    if data[4:20].hex() != namespace_id or data[20:52] != key:
        raise RecordError("the record belongs to another namespace or key")
    return data[: -_CHECKSUM.size]


def is_usable(vector: np.ndarray) -> bool:
    """Return whether a float32 [dim] vector is finite and not all zero, hence may be served."""
    squared_norm = float(np.dot(vector, vector))
    # A NaN or an infinity anywhere makes the sum NaN or infinite.
    return 0.0 < squared_norm < float("inf")
