"""A completion comes back as it was packed, or is a RecordError."""

import struct
import zlib

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from cacheproxy.errors import RecordError
from cacheproxy.routes.chat.record import CompletionRecord, pack, unpack

hex_ids = st.binary(min_size=16, max_size=16).map(bytes.hex)
keys = st.binary(min_size=32, max_size=32)
times = st.floats(0, 4e9)
counts = st.integers(0, 2**32 - 1)
records = st.builds(
    CompletionRecord,
    namespace_id=hex_ids,
    key=keys,
    created_at=times,
    fresh_until=times,
    expires_at=times,
    took_s=times,
    prompt_tokens=counts,
    completion_tokens=counts,
    has_usage=st.booleans(),
    model=st.text(max_size=20),
    body=st.binary(max_size=200),
    question=st.text(max_size=50),
)


def resealed(body: bytes) -> bytes:
    """Return the body with a checksum that matches it."""
    return body + struct.pack("<I", zlib.crc32(body))


def read(record, data):
    return unpack(data, namespace_id=record.namespace_id, key=record.key)


@given(records)
def test_a_completion_comes_back_as_it_was_packed(record):
    assert read(record, pack(record)) == record


@given(records, st.data())
def test_any_flipped_bits_are_a_record_error(record, data):
    packed = bytearray(pack(record))
    place = data.draw(st.integers(0, len(packed) - 1))
    packed[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(RecordError):
        read(record, bytes(packed))


@given(records, st.data(), st.binary(min_size=1, max_size=50))
def test_anything_shorter_or_longer_is_a_record_error(record, data, more):
    packed = pack(record)
    for other in (
        packed[: data.draw(st.integers(0, len(packed) - 1))],
        packed + more,
        more + packed,
    ):
        with pytest.raises(RecordError):
            read(record, other)


@given(records, hex_ids, keys)
def test_anothers_completion_is_a_record_error(record, namespace_id, key):
    assume((namespace_id, key) != (record.namespace_id, record.key))
    with pytest.raises(RecordError):
        unpack(pack(record), namespace_id=namespace_id, key=key)


@given(st.binary(max_size=300))
@example(b"")
@example(resealed(b"CPC2" + bytes(48)))
@example(resealed(b"CPC2" + bytes(48) + bytes(40)))
@example(resealed(b"CPC2" + bytes(48) + bytes(40) + b"\x02" + bytes(6)))
@example(resealed(b"CPC2" + bytes(48) + bytes(41) + b"\x01\x00" + bytes(4) + b"\xff"))
@example(resealed(b"CPC2" + bytes(48) + bytes(47) + b"more"))
def test_random_bytes_are_a_record_error_and_nothing_else(data):
    with pytest.raises(RecordError):
        unpack(data, namespace_id="00" * 16, key=bytes(32))


def test_completions_already_stored_stay_readable():
    record = CompletionRecord(
        namespace_id="0123456789abcdef" * 2,
        key=bytes(range(32)),
        created_at=1.5,
        fresh_until=2.5,
        expires_at=3.5,
        took_s=0.25,
        prompt_tokens=7,
        completion_tokens=9,
        has_usage=True,
        model="größer",
        body=b'{"id":"1"}',
    )
    assert pack(record).hex() == (
        "435043320123456789abcdef0123456789abcdef000102030405060708090a0b0c0d0e0f10111213"
        "1415161718191a1b1c1d1e1f000000000000f83f00000000000004400000000000000c40"
        "000000000000d03f070000000900000001080000000a0000006772c3b6c39f65727b226964223a2231227d"
        "1cdc3040"
    )
