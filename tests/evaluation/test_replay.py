import random
from dataclasses import replace

import numpy as np
import pytest

from cacheproxy.evaluation.policies import Earned, PerEntryLogistic, Static
from cacheproxy.evaluation.replay import EXACT, MISS, SEMANTIC, Traffic, replay
from cacheproxy.thresholds.promise import Promise


def unit(*rows):
    values = np.array(rows, np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


VECTORS = unit([1, 0, 0], [1, 0.1, 0], [0, 1, 0], [0, 1, 0.9])
TRAFFIC = Traffic(
    requests=np.array([0, 0, 1, 1, 2, 3, 3]),
    vectors=VECTORS,
    probes=unit([1, 0], [1, 0.1], [0, 1], [0.1, 1]),
    is_long=np.ones(4, bool),
)


def test_each_request_gets_the_outcome_that_the_tiers_would_give():
    done = replay(TRAFFIC, Static(0.9), 0.95)

    assert done.outcomes.tolist() == [MISS, EXACT, SEMANTIC, SEMANTIC, MISS, SEMANTIC, SEMANTIC]
    assert done.is_wrong.tolist() == [False] * 5 + [True] * 2
    assert (done.hits, done.wrong, done.error) == (4, 2, 0.5)
    assert done.spared == 5


def test_where_nothing_is_served_every_text_is_inferred_once():
    done = replay(TRAFFIC, Static(2.0), 0.95)

    assert done.outcomes.tolist() == [MISS, EXACT, MISS, EXACT, MISS, MISS, EXACT]
    assert len(done.scores) == 3
    assert done.similarities[0] == pytest.approx(float(VECTORS[0] @ VECTORS[1]))


def test_short_texts_find_nothing_and_are_found_by_nobody():
    short = Traffic(TRAFFIC.requests, VECTORS, TRAFFIC.probes, np.array([False, True, True, True]))
    done = replay(short, Static(0.9), 0.95)

    assert done.outcomes.tolist()[2] == MISS


def test_hits_by_texts_that_mean_something_else_are_counted():
    labelled = replace(TRAFFIC, differ=lambda one, other: {one, other} == {0, 1})
    done = replay(labelled, Static(0.9), 0.95)

    assert (done.hits, done.different) == (4, 2)


def many(seed=0, texts=3_000):
    """Pairs of near-duplicates: right from a score of 0.95 on."""
    rng = np.random.default_rng(seed)
    base = rng.normal(size=(texts // 2, 64))
    noise = rng.uniform(0.01, 0.6, (texts // 2, 1)) * rng.normal(size=base.shape)
    rows = np.empty((texts, 64), np.float32)
    rows[0::2], rows[1::2] = base, base + noise
    rows = unit(*rows)
    return Traffic(np.arange(texts), rows, rows, np.ones(texts, bool))


def test_our_thresholds_keep_the_promise_where_a_lax_one_breaks_it():
    promise = Promise(max_error=0.05, min_similarities=(0.97,))
    draw = random.Random(1).random  # noqa: S311
    ours = replay(many(), Earned(promise, 0.97, draw), 0.97)
    lax = replay(many(), Static(0.80), 0.97)

    assert ours.hits > 100
    assert ours.error <= 0.05 < lax.error
    assert ours.thresholds[-1][1] is not None


def test_a_replay_with_the_same_seed_is_the_same():
    def run():
        draw = random.Random(5).random  # noqa: S311
        return replay(many(), PerEntryLogistic(0.05, 0.97, draw), 0.97).outcomes.tolist()

    assert run() == run()
