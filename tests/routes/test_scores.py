"""Scores come back from the store as they went in, or not at all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.errors import RecordError
from cacheproxy.records import EmbeddingRecord
from cacheproxy.records import pack as pack_embedding
from cacheproxy.routes.scores import ScoreRecord, pack, unpack

NAMESPACE, KEY = "ab" * 16, bytes(range(32))
times = st.floats(0, 1e12)
records = st.builds(
    ScoreRecord,
    st.just(NAMESPACE),
    st.just(KEY),
    times,
    times,
    st.integers(0, 2**32 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
)


@given(records)
def test_a_score_survives_packing_to_the_last_bit(record):
    assert unpack(pack(record), namespace_id=NAMESPACE, key=KEY) == record


@given(records, st.integers(0, 95), st.integers(1, 255))
def test_a_changed_byte_is_noticed(record, place, change):
    data = bytearray(pack(record))
    data[place % len(data)] ^= change

    with pytest.raises(RecordError):
        unpack(bytes(data), namespace_id=NAMESPACE, key=KEY)


def test_what_is_no_score_of_this_key_is_refused():
    record = ScoreRecord(NAMESPACE, KEY, 1.0, 2.0, 3, float("nan"))
    embedding = EmbeddingRecord(NAMESPACE, KEY, 1.0, 2.0, 3, bytes(8))

    for data in (pack(record), pack(record._replace(key=bytes(32))), pack_embedding(embedding)):
        with pytest.raises(RecordError):
            unpack(data, namespace_id=NAMESPACE, key=KEY)
