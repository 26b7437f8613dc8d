"""The learned score: halves that never mix, and a plan that labels where it tells most."""

import numpy as np
from taught import labels

from cacheproxy.thresholds.bands import BANDS
from cacheproxy.thresholds.judged.learned import band_of_odds, learn, odds_of_band
from cacheproxy.thresholds.judged.plan import Known, guess_by_odds, plan


def test_what_is_learned_orders_pairs_it_has_not_seen():
    score = learn(labels(1))
    assert score is not None
    new = labels(2)
    odds = score.odds(new["features"], new["half"].astype(np.int64))
    right, wrong = odds[new["is_rejected"] == 0], odds[new["is_rejected"] == 1]

    assert (right[:, None] > wrong).mean() > 0.85


def test_a_label_moves_only_the_score_of_the_other_half():
    rows = labels(3)
    changed = rows.copy()
    ones = np.flatnonzero(rows["half"] == 1)
    changed["is_rejected"][ones[:40]] ^= 1
    before, after = learn(rows), learn(changed)
    assert before is not None
    assert after is not None

    assert np.array_equal(before.weights[1], after.weights[1])
    assert not np.array_equal(before.weights[0], after.weights[0])


def test_few_wrong_ones_teach_nothing():
    rows = labels(4)
    rows["is_rejected"] = 0
    rows["is_rejected"][:10] = 1

    assert learn(rows) is None


def test_bands_of_odds_rise_and_cover_all():
    odds = np.array([-50.0, *(odds_of_band(band) + 0.01 for band in range(1, BANDS)), 50.0])
    bands = band_of_odds(odds)

    assert bands.tolist() == [0, *range(1, BANDS), BANDS - 1]


def make_plan(**more):
    guess = guess_by_odds(np.linspace(-3, 5, BANDS))
    nothing = np.zeros(BANDS)
    known = {"guess": guess, "traffic": nothing + 100, "labels": nothing, "wrong": nothing, **more}
    return plan(
        *(Known(**known), None),
        max_error=0.02,
        sensitivity=0.9,
        false_rejects=0.0,
        error=0.025,
    ).chances


def test_every_band_is_labelled_and_the_best_ones_often():
    chance = make_plan()

    assert (chance > 0).all()
    assert chance.max() == 1
    assert chance[-3:].min() > 3 * chance[:3].max()


def test_what_turned_out_wrong_is_labelled_less():
    labels_, wrong = np.full(BANDS, 20.0), np.linspace(20, 0, BANDS)

    assert (
        make_plan(labels=labels_, wrong=wrong)[20] < make_plan(labels=labels_, wrong=0 * wrong)[20]
    )
