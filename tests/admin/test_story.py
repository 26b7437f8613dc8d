"""What operators are told of a namespace: why it is open or closed, and when that may change."""

import math

from cacheproxy.admin.story import tell_story
from cacheproxy.thresholds.certified import Account
from cacheproxy.thresholds.earned import Standing
from cacheproxy.thresholds.past import ThresholdPast

NOW = 1_800_000_000.0


def told(standing: Standing, **more) -> str:
    account = Account("m", "0" * 32, [standing], **more)
    return tell_story(account, standing, max_error=0.01, now=NOW)


def standing(threshold=None, *, labels=0.0, needed=math.inf, is_suspended=False) -> Standing:
    return Standing(0.95, threshold, is_suspended, 0.02, 0.03, labels, needed)


def test_a_closed_namespace_says_when_it_opens_at_this_traffic():
    story = told(standing(labels=100, needed=7200), labels_per_s=2.0)

    assert story.startswith("closed: 100 labels")
    assert "about 7,200 more to open" in story
    assert story.endswith("by 2027-01-15 09:00 UTC")


def test_a_closed_namespace_says_why_no_number_of_labels_opens_it():
    assert "none is safe, the best one has 2.0% wrong" in told(standing(labels=100))
    assert "no label yet" in told(standing())


def test_an_open_a_suspended_and_a_resting_namespace_say_so():
    assert told(standing(0.9, labels=300), hits=12).startswith("open: serves from score 0.900")
    assert told(standing(0.9, labels=300, is_suspended=True)).startswith("suspended:")
    assert told(standing(0.9), is_aside=True).startswith("aside:")


def test_only_moves_of_a_threshold_are_remembered_and_not_for_ever():
    past = ThresholdPast()
    for at, threshold in enumerate([None, None, 0.9, 0.9, 0.95, None]):
        past.note(at, threshold, 0.05)
    assert [(one.at, one.threshold) for one in past.changes()] == [
        (0, None), (2, 0.9), (4, 0.95), (5, None)
    ]  # fmt: skip
    for at in range(1000):
        past.note(at, at / 1000, 0.05)
    assert len(past.changes()) == 48
