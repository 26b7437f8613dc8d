"""Records: the fixed binary form in which stores keep an entry's payload.

    magic "CPR1" | namespace 16 | key 32 | created_at f64 | expires_at f64 | tokens u32 | dim u32
    | vector: dim x float32 | crc32 u32 over all of the above            (all little-endian)

A record names the entry that it belongs to, so that a mixed-up reply, a foreign value or flipped
bits are a miss and never somebody else's vector. Decoding allocates nothing that the data's own
length does not bound, and runs no code from it (no pickle, no eval).
"""

import struct
import zlib
from typing import NamedTuple, Protocol

import numpy as np

from cacheproxy.errors import RecordError

_MAGIC = b"CPR1"
_HEADER = struct.Struct("<4s16s32sddII")
_CHECKSUM = struct.Struct("<I")


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
    body = (
        _HEADER.pack(
            _MAGIC,
            bytes.fromhex(record.namespace_id),
            record.key,
            record.created_at,
            record.expires_at,
            record.tokens,
            len(record.vector) // 4,
        )
        + record.vector
    )
    return body + _CHECKSUM.pack(zlib.crc32(body))


def unpack(data: bytes, *, namespace_id: str, key: bytes, dimensions: int) -> EmbeddingRecord:
    """Return the record, checked to be whole, of this namespace's key, and a usable vector.

    Raises:
        RecordError: anything else; the caller treats the entry as a miss.
    """
    if len(data) != _HEADER.size + 4 * dimensions + _CHECKSUM.size:
        raise RecordError(f"a record of {len(data)} bytes cannot hold {dimensions} dimensions")
    body = data[: -_CHECKSUM.size]
    magic, namespace, named, created_at, expires_at, tokens, stored = _HEADER.unpack_from(body)
    if magic != _MAGIC:
        raise RecordError("not a record of this version")
    if (zlib.crc32(body),) != _CHECKSUM.unpack_from(data, len(body)):
        raise RecordError("the record's checksum does not match")
    if stored != dimensions or namespace.hex() != namespace_id or named != key:
        raise RecordError("the record belongs to another model, namespace or key")
    vector = body[_HEADER.size :]
    if not is_usable(np.frombuffer(vector, "<f4")):
        raise RecordError("the record's vector is not finite or has no direction")
    return EmbeddingRecord(namespace_id, key, created_at, expires_at, tokens, vector)


def is_usable(vector: np.ndarray) -> bool:
    """Return whether a float32 [dim] vector is finite and not all zero, hence may be served."""
    squared_norm = float(np.dot(vector, vector))
    # A NaN or an infinity anywhere makes the sum NaN or infinite.
    return 0.0 < squared_norm < float("inf")
