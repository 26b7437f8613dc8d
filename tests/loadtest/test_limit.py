"""The search for a limit, on simulated servers: trials near the limit go either way."""

import math
import random

import pytest

from loadtest.limit.belief import Belief

SEARCHES = 60


def search(rng: random.Random, limit: float, spread: float, lapse: float):
    """Return the estimate of a search that starts at 50/s, and the number of its trials."""
    belief, trials = Belief(5, 30_000), 0

    def breaks(per_s: float) -> bool:
        nonlocal trials
        trials += 1
        likely = 1 / (1 + (limit / per_s) ** (1 / spread))
        broke = rng.random() < (rng.random() if rng.random() < lapse else likely)
        belief.learn(per_s, broke=broke)
        return broke

    per_s = 50.0
    while not breaks(per_s):
        per_s *= 1.5
    while (found := belief.estimate()).width > 0.1 and trials < 40:
        breaks(found.per_s)
    return found, trials


@pytest.mark.parametrize(("spread", "lapse"), [(0.001, 0.0), (0.02, 0.0), (0.02, 0.03)])
def test_the_interval_holds_the_limit_and_a_hiccup_does_not_lead_astray(spread, lapse):
    rng = random.Random(1)  # noqa: S311
    held, errors, trials = 0, [], []
    for _ in range(SEARCHES):
        limit = 60 * 20 ** rng.random()
        found, count = search(rng, limit, spread, lapse)
        held += found.low_per_s <= limit <= found.high_per_s
        errors.append(abs(found.per_s / limit - 1))
        trials.append(count)

    assert held >= 0.93 * SEARCHES
    assert sorted(errors)[int(0.95 * SEARCHES)] < 0.05
    assert sum(trials) / SEARCHES < 25


def test_what_is_believed_narrows_with_every_trial():
    belief = Belief(1, 1_000)
    before = belief.estimate()
    assert math.isclose(before.per_s, math.sqrt(1_000), rel_tol=0.01)

    belief.learn(100, broke=False)
    belief.learn(200, broke=True)

    found = belief.estimate()
    assert found.width < before.width
    assert 100 < found.per_s < 200
