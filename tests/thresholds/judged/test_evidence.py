"""Windows of verdicts: bounded, merged as sets, packed, and read back or refused."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cacheproxy.thresholds.bands import BANDS
from cacheproxy.thresholds.judged.evidence import (
    CONTROL,
    LABEL,
    MAX_AGE_S,
    Evidence,
    Kind,
    Outcome,
)


def labels(ids, at=0.0):
    rows = np.zeros(len(ids), LABEL)
    rows["id"], rows["at"], rows["weight"] = ids, at + np.arange(len(ids)), 1
    rows["control"] = Outcome.NONE
    return rows


def controls(ids, kind=Kind.HARD, outcome=Outcome.REJECTED):
    rows = np.zeros(len(ids), CONTROL)
    rows["id"], rows["kind"], rows["outcome"] = ids, kind, outcome
    return rows


def test_what_was_packed_is_read_back():
    evidence = Evidence(3, labels([1, 2]), controls([5]))
    evidence.traffic[4] = 7

    found = Evidence.unpack(evidence.pack())

    assert found is not None
    assert found.epoch == 3
    assert found.labels.tobytes() == evidence.labels.tobytes()
    assert found.controls.tobytes() == evidence.controls.tobytes()
    assert found.traffic[4] == 7


@given(data=st.binary(max_size=300))
def test_other_bytes_are_no_evidence(data):
    assert Evidence.unpack(data) is None


@settings(max_examples=60)
@given(at=st.integers(0, 600), value=st.integers(0, 255))
def test_a_changed_byte_is_refused_or_gives_sane_evidence(at, value):
    data = bytearray(Evidence(1, labels([1, 2, 3]), controls([4, 5])).pack())
    data[at % len(data)] = value

    found = Evidence.unpack(bytes(data))

    if found is not None:
        assert len(found.labels) <= 3
        assert np.isfinite(found.labels["features"]).all()


@settings(max_examples=50)
@given(
    one=st.lists(st.integers(0, 40), max_size=20),
    other=st.lists(st.integers(0, 40), max_size=20),
)
def test_merging_is_a_union_in_any_order(one, other):
    def merged(*parts):
        evidence = Evidence()
        for ids in parts:
            rows = labels(sorted(set(ids)))
            rows["at"] = rows["id"]
            evidence.add(Evidence(0, rows))
        return evidence.labels["id"].tolist()

    assert merged(one, other) == merged(other, one) == merged(one, other, one)
    assert merged(one, other) == sorted({*one, *other})


def test_the_window_keeps_the_latest_within_its_bound():
    evidence = Evidence()
    evidence.add(Evidence(0, labels(range(1, 5_001)), controls(range(1, 5_001))))

    assert len(evidence.labels) == 2_048
    assert evidence.labels["id"].max() == 5_000
    assert len(evidence.controls) == 768
    assert len(evidence.pack()) < 140_000


def test_old_verdicts_leave():
    evidence = Evidence(0, labels([1, 2]))
    evidence.expire(MAX_AGE_S + 0.5)

    assert evidence.labels["id"].tolist() == [2]


def test_traffic_is_halved_when_there_is_much():
    evidence = Evidence()
    evidence.add_traffic(np.full(BANDS, 1_000.0))
    evidence.add_traffic(np.full(BANDS, 1_000.0))

    assert evidence.traffic.sum() <= 50_000
