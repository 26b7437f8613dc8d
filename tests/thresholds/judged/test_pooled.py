"""A score pooled over namespaces: where a new one begins; evidence stays where it was made."""

import random

import numpy as np
from taught import labels

from cacheproxy.telemetry.metrics import Metrics
from cacheproxy.thresholds.judged.allowance import Allowance
from cacheproxy.thresholds.judged.evidence import FEATURES, Outcome
from cacheproxy.thresholds.judged.namespaces import JudgedNamespaces
from cacheproxy.thresholds.judged.pooled import LEAST_NAMESPACES, PooledScore


def test_one_score_is_learned_from_the_labels_of_several_namespaces():
    parts = [labels(seed, 60) for seed in range(LEAST_NAMESPACES)]
    assert PooledScore(lambda: parts[:-1])() is None

    score = PooledScore(lambda: parts)()

    assert score is not None
    new = labels(9)
    odds = score.odds(new["features"], new["half"].astype(np.int64))
    right, wrong = odds[new["is_rejected"] == 0], odds[new["is_rejected"] == 1]
    assert (right[:, None] > wrong).mean() > 0.85


def test_a_busy_namespace_does_not_outvote_the_others():
    busy = labels(1, 2_000)
    for name in ("features", "is_rejected"):
        busy[name][:-256] = 0  # what does not count
    others = [labels(2, 200), labels(3, 200)]

    with_all = PooledScore(lambda: [busy, *others])()
    with_latest = PooledScore(lambda: [busy[-256:], *others])()

    assert with_all is not None
    assert with_latest is not None
    assert np.array_equal(with_all.weights, with_latest.weights)


def make(*, is_pooled=True):
    rng = random.Random(1)  # noqa: S311
    return JudgedNamespaces(
        Allowance(),
        max_error=0.02,
        confidence=0.95,
        assumed=None,
        is_pooled=is_pooled,
        model="m",
        metrics=Metrics(),
        now=lambda: 1.0,
        draw=rng.random,
    )


def teach(namespaces, name, seed):
    rng = np.random.default_rng(seed)
    for number in range(60):
        features = rng.random(FEATURES).astype(np.float32)
        pick = namespaces.of(name).rank([features], [int(rng.integers(0, 2))])
        said = Outcome.REJECTED if features[2] > 0.6 else Outcome.ACCEPTED
        namespaces.observe(name, pick, said, item=1_000 * seed + number, weight=1.0)


def better_of_two(namespaces, name):
    """Return which of two candidates a namespace takes: the nearer one, or the likelier one."""
    near, likely = np.full((2, FEATURES), 0.5, np.float32)
    near[0], near[2], likely[2] = 0.99, 0.95, 0.05
    return namespaces.of(name).rank([near, likely], [0, 1]).index


def test_a_new_namespace_begins_with_the_score_of_the_others_and_with_none_of_their_evidence():
    namespaces = make()
    for seed in range(1, LEAST_NAMESPACES + 1):
        teach(namespaces, f"tenant {seed}", seed)

    assert better_of_two(namespaces, "new") == 1
    new = namespaces.of("new")
    assert len(new.evidence.labels) == 0
    assert len(new.evidence.controls) == 0
    assert not new.is_open
    assert new.standing().certificate.labels == 0


def test_where_scores_are_not_pooled_a_new_namespace_begins_with_the_cosine():
    namespaces = make(is_pooled=False)
    for seed in range(1, LEAST_NAMESPACES + 1):
        teach(namespaces, f"tenant {seed}", seed)

    assert better_of_two(namespaces, "new") == 0
