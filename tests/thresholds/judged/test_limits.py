"""The bound keeps its confidence with a judge that errs, and opens where the old one could not."""

import numpy as np
import pytest

from cacheproxy.thresholds.bands import BANDS
from cacheproxy.thresholds.bounds import Stratum, lower_limit, rate_upper_limit, with_one_more
from cacheproxy.thresholds.judged.anytime import least_rate
from cacheproxy.thresholds.judged.evidence import CONTROL, LABEL, Kind, Outcome
from cacheproxy.thresholds.judged.limits import (
    Block,
    JudgedLabels,
    Sensitivity,
    count,
    sensitivity_of,
    texts_of,
)

TOP = BANDS - 1


def verdicts(rng, labels, *, wrong, s, f, judged=1.0, escapes=0.0):
    """Return labels in one band of which a share is wrong, judged with these rates."""
    rows = np.zeros(labels, LABEL)
    rows["weight"] = 1
    is_wrong = rng.random(labels) < wrong
    rows["is_judged"] = np.where(
        is_wrong, rng.random(labels) >= escapes, rng.random(labels) < judged
    )
    rejects = rng.random(labels) < np.where(is_wrong, s, f)
    rows["is_rejected"] = rejects & (rows["is_judged"] == 1)
    own = np.where(rng.random(labels) < f, Outcome.REJECTED, Outcome.ACCEPTED)
    rows["control"] = np.where(rows["is_judged"] == 1, own, Outcome.NONE)
    return rows


def estimate(rows, sensitivity, error=0.05):
    bands = np.full(len(rows), TOP)
    traffic = np.zeros(BANDS)
    traffic[TOP] = 1_000
    counts = count(rows, bands, texts_of(rows, bands, traffic))
    stratum = Stratum(counts.traffic[TOP], counts.labels[TOP], counts.rejected[TOP])
    return JudgedLabels(counts, sensitivity).estimate([Block(TOP, BANDS, stratum)], error)


def measured(rng, s, trials=150):
    found = int((rng.random(trials) < s).sum())
    return Sensitivity(found / trials, least_rate(found, trials, 0.05), trials)


@pytest.mark.parametrize(("s", "f"), [(0.95, 0.02), (0.9, 0.0025), (0.72, 0.01), (0.9, 0.05)])
@pytest.mark.parametrize(("judged", "escapes"), [(1.0, 0.0), (0.5, 0.07)])
def test_the_upper_limit_covers_the_true_share_in_most_trials(s, f, judged, escapes):
    rng = np.random.default_rng(7)
    below = 0
    for _ in range(300):
        rows = verdicts(rng, 600, wrong=0.02, s=s, f=f, judged=judged, escapes=escapes)
        below += estimate(rows, measured(rng, s)).upper <= 0.02
    assert below <= 0.05 * 300


@pytest.mark.parametrize(("s", "f", "labels"), [(0.95, 0.02, 2_000), (0.9, 0.0025, 700)])
def test_right_neighbours_are_certified_although_the_judge_rejects_some(s, f, labels):
    rng = np.random.default_rng(8)
    opened = sum(
        estimate(verdicts(rng, labels, wrong=0, s=s, f=f), measured(rng, s)).upper <= 0.02
        for _ in range(60)
    )
    assert opened >= 42


def test_a_judge_that_sees_no_more_than_it_invents_certifies_nothing():
    rows = verdicts(np.random.default_rng(1), 2_000, wrong=0, s=0.5, f=0.3)

    assert estimate(rows, Sensitivity(0.35, 0.28)).upper == 1


def test_labels_of_unequal_weight_are_worth_fewer():
    rows = verdicts(np.random.default_rng(1), 100, wrong=0, s=0.9, f=0)
    rows["weight"][:50] = 5
    bands = np.full(100, TOP)
    traffic = np.zeros(BANDS)
    traffic[TOP] = 100
    counts = count(rows, bands, texts_of(rows, bands, traffic))

    assert counts.traffic[TOP] == pytest.approx(100)
    assert counts.labels[TOP] == pytest.approx(300**2 / 1_300)


def test_sensitivity_is_the_worse_kind_where_they_differ_and_unknown_without_both():
    def rows(kind, rejected, asked):
        found = np.zeros(asked, CONTROL)
        found["kind"] = kind
        found["outcome"] = Outcome.ACCEPTED
        found["outcome"][:rejected] = Outcome.REJECTED
        return found

    hard = rows(Kind.HARD, 60, 60)
    assert sensitivity_of(hard).lower == 0
    worse = sensitivity_of(np.concatenate([hard, rows(Kind.TRAFFIC, 40, 60)]))
    assert worse.lower_but_for(0.01) == least_rate(40, 60, 0.01)
    alike = sensitivity_of(np.concatenate([hard, rows(Kind.TRAFFIC, 60, 60)]))
    assert alike.lower_but_for(0.01) == least_rate(120, 120, 0.01)


def test_limits_of_clopper_and_pearson():
    assert lower_limit(81, 100, 0.9875) == pytest.approx(0.7061, abs=1e-3)
    assert lower_limit(10, 10, 0.95) == pytest.approx(0.05**0.1, abs=1e-4)
    assert lower_limit(0, 10, 0.95) == 0
    assert rate_upper_limit(0, 0, 0.95) == 1
    assert rate_upper_limit(0, 59, 0.95) == pytest.approx(0.0495, abs=1e-3)


def test_uneven_checking_by_chance_costs_less_than_by_design():
    strata = [Stratum(100, 30, 0), Stratum(100, 60, 0)]
    by_chance, by_design = with_one_more(strata, at_worst=False), with_one_more(strata)

    assert by_chance is not None
    assert by_design is not None
    assert by_chance.scale < by_design.scale
