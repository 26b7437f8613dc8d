"""The fixed binary form in which stores keep a completion.

    magic "CPC1" | namespace 16 | key 32 | created_at f64 | fresh_until f64 | expires_at f64
    | took_s f64 | prompt_tokens u32 | completion_tokens u32 | has_usage u8 | model's bytes u16
    | body's bytes u32 | model | body | crc32 u32 over all of the above      (all little-endian)

As with embeddings, a record names the entry that it belongs to, and no code runs from its data.
"""

import struct
import zlib
from dataclasses import dataclass

from cacheproxy.errors import RecordError

_MAGIC = b"CPC1"
_HEADER = struct.Struct("<4s16s32sddddIIBHI")
_CHECKSUM = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class CompletionRecord:
    """One cached completion.

    Attributes:
        namespace_id: 32 hex characters.
        key: the exact tier's key, 32 bytes.
        created_at: Unix time at which the upstream had answered, seconds.
        fresh_until: Unix time from which it is stale, seconds.
        expires_at: Unix time from which it may not be served, stale or not, seconds.
        took_s: the time that the upstream took for the whole answer, seconds.
        prompt_tokens, completion_tokens: as the upstream counted them; 0 where it did not say.
        has_usage: whether it said.
        model: as it was asked for.
        body: a `chat.completion` object, as JSON.
    """

    namespace_id: str
    key: bytes
    created_at: float
    fresh_until: float
    expires_at: float
    took_s: float
    prompt_tokens: int
    completion_tokens: int
    has_usage: bool
    model: str
    body: bytes

    @property
    def size_bytes(self) -> int:
        """The body's bytes, and the model's name."""
        return len(self.body) + len(self.model)


def pack(record: CompletionRecord) -> bytes:
    """Return the record's bytes."""
    model = record.model.encode()
    header = _HEADER.pack(
        _MAGIC,
        bytes.fromhex(record.namespace_id),
        record.key,
        record.created_at,
        record.fresh_until,
        record.expires_at,
        record.took_s,
        record.prompt_tokens,
        record.completion_tokens,
        record.has_usage,
        len(model),
        len(record.body),
    )
    body = header + model + record.body
    return body + _CHECKSUM.pack(zlib.crc32(body))


def unpack(data: bytes, *, namespace_id: str, key: bytes) -> CompletionRecord:
    """Return the record, checked to be whole and of this namespace's key.

    Raises:
        RecordError: anything else; the caller treats the entry as a miss.
    """
    if len(data) < _HEADER.size + _CHECKSUM.size:
        raise RecordError(f"a completion cannot be in {len(data)} bytes")
    magic, namespace, named, *said, has_usage, model_bytes, body_bytes = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        raise RecordError("not a completion of this version")
    end = _HEADER.size + model_bytes + body_bytes
    if len(data) != end + _CHECKSUM.size:
        raise RecordError("the record is not as long as it says")
    if (zlib.crc32(data[:end]),) != _CHECKSUM.unpack_from(data, end):
        raise RecordError("the record's checksum does not match")
    if namespace.hex() != namespace_id or named != key or has_usage > 1:
        raise RecordError("the record belongs to another namespace or key")
    try:
        model = data[_HEADER.size : _HEADER.size + model_bytes].decode()
    except UnicodeDecodeError:
        raise RecordError("the record's model has no name") from None
    body = data[_HEADER.size + model_bytes : end]
    created_at, fresh_until, expires_at, took_s, prompt_tokens, completion_tokens = said
    return CompletionRecord(
        namespace_id=namespace_id,
        key=key,
        created_at=created_at,
        fresh_until=fresh_until,
        expires_at=expires_at,
        took_s=took_s,
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        has_usage=bool(has_usage),
        model=model,
        body=body,
    )
