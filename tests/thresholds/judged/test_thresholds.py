"""The judged thresholds: when they open, what closes them, and what servers share."""

import random

import numpy as np
import pytest

from cacheproxy.thresholds.judged.evidence import FEATURES, Evidence, Kind, Outcome
from cacheproxy.thresholds.judged.limits import Sensitivity
from cacheproxy.thresholds.judged.thresholds import JudgedThresholds


class World:
    """Pairs near and far, a judge with rates, and the thresholds between them."""

    def __init__(self, seed=0, *, s=0.9, f=0.0025, wrong=0.0, **more):
        self.rng = random.Random(seed)  # noqa: S311
        self.s, self.f, self.wrong = s, f, wrong
        self.now = 0.0
        self.is_assumed = "assumed" in more
        self.thresholds = JudgedThresholds(
            max_error=0.02, confidence=0.95, random=self.rng.random, **more
        )

    def outcome(self, rate):
        return Outcome.REJECTED if self.rng.random() < rate else Outcome.ACCEPTED

    def controls(self, count=40):
        for _ in range(count):
            for kind in (Kind.HARD, Kind.TRAFFIC):
                self.now += 1
                item = self.rng.getrandbits(64)
                self.thresholds.controlled(kind, self.outcome(self.s), now=self.now, item=item)

    def pick(self, cosine=None):
        features = np.zeros(FEATURES, np.float32)
        features[0] = self.rng.uniform(0.9, 1) if cosine is None else cosine
        return self.thresholds.rank([features], [self.rng.getrandbits(1)])

    def texts(self, count, *, outcome=None):
        """Return how many of so many texts are served; all are labelled."""
        hits = 0
        for _ in range(count):
            self.now += 1
            pick = self.pick()
            served = self.thresholds.serve(pick)
            hits += served
            is_wrong = self.rng.random() < self.wrong
            self.thresholds.observe(
                *(
                    pick,
                    self.outcome(self.s if is_wrong else self.f) if outcome is None else outcome,
                ),
                now=self.now,
                item=self.rng.getrandbits(64),
                weight=1.0,
                served=served,
                control=Outcome.NONE if served or self.is_assumed else self.outcome(self.f),
            )
        return hits


@pytest.mark.parametrize(("s", "f"), [(0.9, 0.0004), (0.81, 0.0025), (0.95, 0.02)])
def test_it_opens_where_neighbours_are_right(s, f):
    world = World(s=s, f=f)
    world.controls(80)

    assert world.texts(2_000) > 0
    assert world.thresholds.standing().threshold == pytest.approx(0.9, abs=0.05)


def test_it_stays_closed_where_more_are_wrong_than_is_promised():
    opened = 0
    for seed in range(6):
        world = World(seed, wrong=0.06)
        world.controls()
        opened += world.texts(600) > 0
    assert opened == 0


def test_nothing_is_served_before_the_judge_was_tried_on_wrong_pairs():
    world = World()

    assert world.texts(600) == 0


def test_without_controls_false_rejects_are_taken_for_wrong_answers():
    closed = World(f=0.03, assumed=Sensitivity(0.9, 0.85))

    assert closed.texts(800, outcome=None) == 0


@pytest.mark.parametrize(
    ("s", "f", "reason"),
    [(0.0, 0.0, "accepts"), (1.0, 1.0, "fresh answers"), (0.25, 0.25, "judge")],
)
def test_a_useless_judge_makes_the_tier_step_aside_and_say_why(s, f, reason):
    world = World(s=s, f=f)
    world.controls()
    world.texts(150)

    aside = world.thresholds.standing().aside
    assert aside is not None
    assert reason in aside
    assert not world.thresholds.is_open


def test_replies_that_cannot_be_read_are_no_labels_and_counted():
    world = World()
    world.texts(60, outcome=Outcome.UNREADABLE)

    assert len(world.thresholds.evidence.labels) == 0
    aside = world.thresholds.standing().aside
    assert aside is not None
    assert "neither ACCEPT nor REJECT" in aside


def test_replies_that_are_unreadable_for_cached_answers_only_make_it_step_aside():
    world = World()
    world.controls()
    for _ in range(3):
        world.texts(40)
        world.texts(15, outcome=Outcome.UNREADABLE)

    assert "more often for cached answers" in (world.thresholds.standing().aside or "")


def test_a_judge_that_obeys_what_it_reads_makes_it_step_aside():
    world = World()
    world.controls()
    for _ in range(12):
        world.now += 1
        item = world.rng.getrandbits(64)
        world.thresholds.controlled(Kind.INJECTED, Outcome.ACCEPTED, now=world.now, item=item)

    assert "follows instructions" in (world.thresholds.standing().aside or "")


def opened_world(**more):
    world = World(**more)
    world.controls(80)
    world.texts(900)
    assert world.thresholds.is_open
    return world


def test_rejected_hits_suspend_it_at_once_and_right_ones_resume_it():
    world = opened_world()
    wrong_hits = world.texts(12, outcome=Outcome.REJECTED)

    assert wrong_hits < 12
    assert world.thresholds.alarms["hits"] == 1
    assert not world.thresholds.is_open


def test_a_judge_that_accepts_everything_from_now_on_is_noticed_by_wrong_pairs():
    world = opened_world()
    world.s = 0.0
    world.controls(12)

    assert world.thresholds.alarms["judge"] == 1
    assert not world.thresholds.is_open
    assert world.thresholds.evidence.epoch == 1


def test_as_many_rejections_as_the_judge_makes_of_right_answers_are_no_alarm():
    world = World(s=0.95, f=0.02)
    world.controls(80)
    world.texts(2_000)
    assert world.thresholds.is_open
    world.texts(400)

    assert world.thresholds.alarms == {"hits": 0, "judge": 0, "refuted": 0}


def test_evidence_goes_on_in_another_process():
    world = opened_world()
    packed = world.thresholds.offer(None).pack()
    other = World(seed=1)
    shared = Evidence.unpack(packed)
    assert shared is not None
    other.thresholds.adopt(other.thresholds.offer(shared), world.now)

    assert other.thresholds.is_open
    assert other.thresholds.band == world.thresholds.band


def test_two_servers_news_add_up_and_are_offered_again_when_they_could_not_be_kept():
    one, two = World(1), World(2)
    one.texts(50)
    two.texts(50)
    shared = one.thresholds.offer(None)
    packed = shared.pack()
    one.thresholds.adopt(shared, one.now)
    two.thresholds.offer(Evidence.unpack(packed))
    two.thresholds.offer_number = 1  # it is not known to be stored
    copy = Evidence.unpack(packed)
    assert copy is not None
    both = two.thresholds.offer(copy)
    two.thresholds.adopt(both, two.now)

    assert len(two.thresholds.evidence.labels) == 100
    assert two.thresholds.evidence.traffic.sum() == 100
    assert not two.thresholds.has_news


def test_evidence_that_is_refuted_while_it_is_being_shared_does_not_come_back():
    world = opened_world()
    shared = world.thresholds.offer(None)
    world.thresholds.offer_number = 1
    world.thresholds._refute()
    world.thresholds.adopt(shared, world.now)

    assert world.thresholds.evidence.epoch == 1
    assert len(world.thresholds.evidence.labels) == 0
    assert not world.thresholds.is_open
    assert world.thresholds.has_news


def test_evidence_that_is_refuted_before_it_is_offered_again_is_left_out():
    world = opened_world()
    world.thresholds.offer(None)
    world.thresholds.offer_number = 1
    world.thresholds._refute()

    assert len(world.thresholds.offer(None).labels) == 0


def test_what_one_server_refuted_is_dropped_by_the_others():
    one, two = World(1), World(2)
    two.texts(80)
    one.texts(50)
    one.thresholds.evidence.epoch = 4
    two.thresholds.adopt(one.thresholds.offer(None), 0.0)

    assert two.thresholds.evidence.epoch == 4
    assert not two.thresholds.is_open
