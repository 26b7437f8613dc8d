"""Chat thresholds on traffic where nothing may be served: they open as rarely as is promised."""

import numpy as np

from cacheproxy.evaluation.coverage import Border, opens_at
from cacheproxy.thresholds.bands import BANDS
from cacheproxy.thresholds.bounds import chi2_quantile
from cacheproxy.thresholds.judged import limits, spending

RUNS = 100


def opened(border, runs=RUNS):
    return sum(opens_at(border, seed) is not None for seed in range(runs))


def without_correction(monkeypatch):
    """Give every look at every threshold the whole error probability, as if it were alone."""

    def most_at_one_look(count, error):
        return chi2_quantile(1 - min(error, 0.05), 2 * count + 2) / 2

    monkeypatch.setattr(limits, "most_expected", most_at_one_look)
    monkeypatch.setattr(spending, "by_cosine", lambda error: np.full(BANDS, error))
    monkeypatch.setattr(spending, "by_odds", lambda error, fit: np.full(BANDS, error))


def test_with_as_many_wrong_as_promised_at_most_one_run_in_twenty_ever_opens():
    assert opened(Border(labels=1_000)) <= 0.05 * RUNS


def test_the_same_holds_with_a_judge_that_errs():
    border = Border(sensitivity=0.9, false_rejects=0.05, labels=1_000)

    assert opened(border, 60) <= 0.05 * 60


def test_without_the_correction_for_many_looks_more_runs_open(monkeypatch):
    without_correction(monkeypatch)

    assert opened(Border(labels=600), 30) > 0.05 * 30


def test_where_hardly_any_is_wrong_it_opens():
    assert opened(Border(wrong=0.001, labels=800), 20) >= 14
