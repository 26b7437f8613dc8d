"""A record comes back as it was packed, or is a RecordError: never another's, never a crash."""

import struct
import zlib

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from cacheproxy.errors import RecordError
from cacheproxy.records import EmbeddingRecord, is_usable, pack, unpack

hex_ids = st.binary(min_size=16, max_size=16).map(bytes.hex)
times = st.floats(0, 4e9)
components = st.floats(-1e3, 1e3, width=32)
vectors = (
    st.lists(components, min_size=1, max_size=16)
    .map(lambda values: np.array(values, "<f4"))
    .filter(lambda vector: np.abs(vector).max() > 1e-3)
)
records = st.builds(
    EmbeddingRecord,
    namespace_id=hex_ids,
    key=st.binary(min_size=32, max_size=32),
    created_at=times,
    expires_at=times,
    tokens=st.integers(0, 2**32 - 1),
    vector=vectors.map(np.ndarray.tobytes),
)


def dimensions(record: EmbeddingRecord) -> int:
    return len(record.vector) // 4


def read(record: EmbeddingRecord, data: bytes, **other) -> EmbeddingRecord:
    expected = {
        "namespace_id": record.namespace_id,
        "key": record.key,
        "dimensions": dimensions(record),
    }
    return unpack(data, **(expected | other))


def resealed(body: bytes) -> bytes:
    """Return the body with a checksum that matches it."""
    return body + struct.pack("<I", zlib.crc32(body))


@given(records)
def test_a_record_comes_back_as_it_was_packed(record):
    assert read(record, pack(record)) == record


@given(records, st.data())
def test_any_flipped_bits_are_a_record_error(record, data):
    packed = bytearray(pack(record))
    place = data.draw(st.integers(0, len(packed) - 1))
    packed[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(RecordError):
        read(record, bytes(packed))


@given(records, st.data())
def test_any_truncation_is_a_record_error(record, data):
    packed = pack(record)
    with pytest.raises(RecordError):
        read(record, packed[: data.draw(st.integers(0, len(packed) - 1))])


@given(records, st.binary(min_size=1, max_size=100))
def test_anything_appended_or_prepended_is_a_record_error(record, more):
    for data in (pack(record) + more, more + pack(record)):
        with pytest.raises(RecordError):
            read(record, data)


@given(records, hex_ids)
def test_another_namespaces_record_is_a_record_error(record, other):
    assume(other != record.namespace_id)
    with pytest.raises(RecordError):
        read(record, pack(record), namespace_id=other)


@given(records, st.binary(min_size=32, max_size=32))
def test_another_keys_record_is_a_record_error(record, other):
    assume(other != record.key)
    with pytest.raises(RecordError):
        read(record, pack(record), key=other)


@given(records, st.integers(-5, 2**40))
def test_a_record_of_another_dimension_is_a_record_error(record, other):
    assume(other != dimensions(record))
    with pytest.raises(RecordError):
        read(record, pack(record), dimensions=other)


@given(records, st.integers(0, 2**32 - 1))
def test_a_dimension_that_lies_about_the_length_is_a_record_error(record, stated):
    assume(stated != dimensions(record))
    body = bytearray(pack(record)[:-4])
    body[72:76] = struct.pack("<I", stated)
    with pytest.raises(RecordError):
        read(record, resealed(bytes(body)))


@given(records, st.binary(min_size=4, max_size=4))
def test_another_magic_is_a_record_error_even_with_a_matching_checksum(record, magic):
    assume(magic != b"CPR1")
    with pytest.raises(RecordError):
        read(record, resealed(magic + pack(record)[4:-4]))


@given(st.binary(max_size=300), st.integers(0, 64))
@example(b"", 0)
@example(b"CPR1" + bytes(76), 0)
@example(resealed(b"CPR1" + bytes(48)), 0)
@example(resealed(b"CPR1" + bytes(72)), 0)
@example(resealed(b"CPR1" + bytes(68) + struct.pack("<I", 4) + bytes(16)), 4)
def test_random_bytes_are_a_record_error_and_nothing_else(data, wanted):
    with pytest.raises(RecordError):
        unpack(data, namespace_id="00" * 16, key=bytes(32), dimensions=wanted)


@given(records, st.sampled_from([np.nan, np.inf, -np.inf]), st.data())
def test_a_vector_that_is_not_finite_is_a_record_error(record, bad, data):
    vector = np.frombuffer(record.vector, "<f4").copy()
    vector[data.draw(st.integers(0, len(vector) - 1))] = bad
    assert not is_usable(vector)
    body = pack(record)[: -4 - vector.nbytes] + vector.tobytes()
    with pytest.raises(RecordError):
        read(record, resealed(body))


@given(st.integers(0, 64))
def test_a_zero_vector_is_a_record_error(size):
    zero = np.zeros(size, "<f4")
    assert not is_usable(zero)
    record = EmbeddingRecord("00" * 16, bytes(32), 0.0, 1.0, 1, zero.tobytes())
    with pytest.raises(RecordError):
        read(record, pack(record))


@given(vectors)
def test_a_finite_vector_with_a_direction_is_usable(vector):
    assert is_usable(vector)


def test_records_already_stored_stay_readable():
    record = EmbeddingRecord(
        "0123456789abcdef" * 2, bytes(range(32)), 1.5, 2.5, 7, np.array([0.6, 0.8], "<f4").tobytes()
    )
    assert pack(record).hex() == (
        "435052310123456789abcdef0123456789abcdef000102030405060708090a0b0c0d0e0f10111213"
        "1415161718191a1b1c1d1e1f000000000000f83f000000000000044007000000020000009a99193f"
        "cdcc4c3f4094ae35"
    )
