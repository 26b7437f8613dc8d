import pytest

from cacheproxy.thresholds.bands import BANDS, EDGES, band_of, lowest_score
from cacheproxy.thresholds.ledger import Ledger

KEPT = (0.90, 0.95)


def test_a_score_lies_in_the_band_that_begins_at_or_below_it():
    assert band_of(-1.0) == 0
    assert band_of(1.0) == BANDS - 1
    for band, edge in enumerate(EDGES, start=1):
        assert band_of(edge) == band
        assert band_of(edge - 1e-9) == band - 1
        assert lowest_score(band) == edge


def test_one_label_counts_for_every_similarity():
    ledger = Ledger(KEPT)
    ledger.label(7, 0.93)

    assert ledger.labels[7] == 1
    assert [errors[7] for errors in ledger.errors] == [0, 1]


def test_a_packed_ledger_comes_back():
    ledger = Ledger(KEPT, epoch=3)
    ledger.traffic[5] += 10
    ledger.label(5, 0.91)
    data = ledger.pack()

    assert Ledger.unpack(data, KEPT) == ledger
    assert len(Ledger((0.90, 0.95, 0.98)).pack()) <= 4_000 / 3


@pytest.mark.parametrize("damage", [b"", b"CPLG", b"x" * 100])
def test_what_is_no_ledger_is_none(damage):
    assert Ledger.unpack(damage, KEPT) is None


def test_a_ledger_of_other_similarities_is_none():
    assert Ledger.unpack(Ledger((0.90, 0.96)).pack(), KEPT) is None


def test_a_ledger_with_impossible_counts_is_none():
    ledger = Ledger(KEPT)
    ledger.labels[3] = float("nan")

    assert Ledger.unpack(ledger.pack(), KEPT) is None


def test_forgetting_leaves_no_labels():
    ledger = Ledger(KEPT)
    ledger.traffic[5] += 10
    ledger.label(5, 0.1)
    ledger.forget()

    assert (ledger.epoch, ledger.traffic[5], sum(ledger.labels)) == (1, 1.0, 0)
    assert not any(map(any, ledger.errors))
