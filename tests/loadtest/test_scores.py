"""How `bench scores` finds the best threshold in hindsight."""

import pytest

from loadtest.bench.replay.scores import hits_in_hindsight


@pytest.mark.parametrize(
    ("scores", "is_right", "hits"),
    [
        ([0.9, 0.8, 0.7], [True, True, True], 3),
        ([0.7, 0.9, 0.8], [False, True, True], 2),
        ([0.9, 0.8], [False, True], 0),
        ([0.9] * 50 + [0.8], [True] * 50 + [False], 51),
        ([0.9] * 48 + [0.8], [True] * 48 + [False], 48),
    ],
)
def test_the_loosest_threshold_within_the_promise_counts(scores, is_right, hits):
    assert hits_in_hindsight(scores, is_right, 0.02) == hits


def test_no_threshold_parts_equal_scores():
    assert hits_in_hindsight([0.9, 0.8, 0.8], [True, True, False], 0.02) == 1


def test_without_lookups_there_are_no_hits():
    assert hits_in_hindsight([], [], 0.02) == 0
