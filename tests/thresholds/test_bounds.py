import numpy as np
import pytest

from cacheproxy.thresholds.bounds import (
    Stratum,
    chi2_quantile,
    least_labels,
    lower_limit,
    upper_limit,
)


@pytest.mark.parametrize(
    ("confidence", "degrees", "exact"),
    [
        # From tables of the chi-squared distribution.
        (0.95, 2, 5.9915),
        (0.95, 4, 9.4877),
        (0.95, 10, 18.307),
        (0.95, 100, 124.342),
        (0.90, 6, 10.6446),
        (0.99, 2, 9.2103),
        (0.99, 20, 37.5662),
        (0.999, 3, 16.2662),
    ],
)
def test_the_quantile_is_never_too_low_and_hardly_too_high(confidence, degrees, exact):
    assert 0.9999 <= chi2_quantile(confidence, degrees) / exact <= 1.035


def test_without_errors_299_labels_promise_one_in_a_hundred():
    assert least_labels(0.01, 0.95) == 300
    assert upper_limit([Stratum(1_000, 300, 0)], 0.95) <= 0.01
    assert upper_limit([Stratum(1_000, 290, 0)], 0.95) > 0.01


def test_traffic_that_was_never_checked_promises_nothing():
    assert upper_limit([], 0.95) == 1.0
    assert upper_limit([Stratum(10, 1_000, 0), Stratum(1, 0, 0)], 0.95) == 1.0


def test_how_traffic_is_cut_into_strata_does_not_matter_where_all_is_checked():
    whole = upper_limit([Stratum(900, 900, 9)], 0.95)
    parts = upper_limit([Stratum(500, 500, 2), Stratum(400, 400, 7)], 0.95)

    assert parts == pytest.approx(whole)


def test_uneven_sampling_does_not_bias_the_limit():
    """T4: hits are checked at 1 %, misses at 100 %; pooled labels would say 0.2 instead of 2 %."""
    rng = np.random.default_rng(4)
    covered = 0
    for _ in range(200):
        hits, misses = 20_000, 2_000
        checked = rng.binomial(hits, 0.01)
        strata = [
            Stratum(hits, checked, rng.binomial(checked, 0.02)),
            Stratum(misses, misses, rng.binomial(misses, 0.001)),
        ]
        truth = (hits * 0.02 + misses * 0.001) / (hits + misses)
        covered += upper_limit(strata, 0.95) >= truth
    assert covered >= 190


def test_the_lower_limit_of_a_rate_is_clopper_and_pearsons():
    assert lower_limit(100, 100, 0.95) == pytest.approx(0.05**0.01, abs=1e-5)
    assert lower_limit(180, 200, 0.95) == pytest.approx(0.858, abs=1e-3)
    assert lower_limit(0, 10, 0.95) == 0
