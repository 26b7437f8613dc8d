"""Limits that hold at all times together, against chance that is looked at after every label."""

import numpy as np
import pytest

from cacheproxy.thresholds.judged.anytime import least_expected, least_rate, most_expected


def share_of_breaches(rate, breaches, *, runs=400, labels=1_500, every=10):
    """Return the share of runs in which some look finds the true rate outside the limit."""
    rng = np.random.default_rng(3)
    seen = np.cumsum(rng.random((runs, labels)) < rate, axis=1)[:, every - 1 :: every]
    looks = np.arange(every, labels + 1, every)
    known = {}

    def is_breach(count, trials):
        key = int(count), int(trials)
        if key not in known:
            known[key] = breaches(*key)
        return known[key]

    return np.mean([any(map(is_breach, run, looks)) for run in seen])


@pytest.mark.parametrize("rate", [0.02, 0.1])
def test_the_upper_limit_covers_at_all_looks_together(rate):
    limits = {}

    def breaches(count, trials):
        limits.setdefault(count, most_expected(count, 0.05))
        return limits[count] < rate * trials

    assert 0.01 < share_of_breaches(rate, breaches) <= 0.05


@pytest.mark.parametrize("rate", [0.02, 0.1])
def test_the_lower_limit_covers_at_all_looks_together(rate):
    limits = {}

    def breaches(count, trials):
        limits.setdefault(count, least_expected(count, 0.05))
        return limits[count] > rate * trials

    assert 0.005 < share_of_breaches(rate, breaches) <= 0.05


def test_the_lower_limit_of_a_rate_covers_at_all_looks_together():
    share = share_of_breaches(
        0.9,
        lambda found, trials: least_rate(found, trials, 0.05) > 0.9,
        runs=200,
        labels=400,
        every=20,
    )
    assert 0.005 < share <= 0.05


def test_what_was_never_seen_is_bounded_as_a_single_bet_would():
    assert most_expected(0, 0.05) == pytest.approx(3.5, abs=0.1)  # -ln 0.05 is 3.0
    assert least_expected(0, 0.05) == 0
    assert least_rate(40, 40, 0.05) > 0.88
