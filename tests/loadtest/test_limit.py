"""The search for a limit, on simulated servers: trials near the limit go either way."""

import math
import random

import pytest

from loadtest.errors import LoadTestError
from loadtest.limit.belief import Belief
from loadtest.limit.search import Search, search_limit

SEARCHES = 60


def search(rng: random.Random, limit: float, spread: float, lapse: float, **more: float):
    """Return what a search finds that starts at 50/s, and the number of its trials."""
    trials = 0

    def breaks(per_s: float) -> bool:
        nonlocal trials
        trials += 1
        likely = (1 + math.tanh(math.log(per_s / limit) / spread / 2)) / 2
        return rng.random() < (rng.random() if rng.random() < lapse else likely)

    how = {"start_per_s": 50, "step": 1.5, "most_per_s": 5_000, "precision": 0.1}
    return search_limit(Search({}, {}, most_trials=40, **{**how, **more}), breaks), trials


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


def test_a_first_rate_beyond_the_limit_is_stepped_down_from():
    found, _ = search(random.Random(1), 20, 0.01, 0)  # noqa: S311

    assert found.low_per_s <= 20 <= found.high_per_s


def test_a_limit_that_is_not_reached_is_not_made_up():
    found, _ = search(random.Random(1), 1e9, 0.01, 0)  # noqa: S311

    assert (found.per_s, found.low_per_s, found.high_per_s) == (None, 5_000, None)
    assert not found.is_precise


def test_a_server_that_keeps_nothing_has_no_limit():
    with pytest.raises(LoadTestError, match="break even at"):
        search(random.Random(1), 1e-9, 0.01, 0)  # noqa: S311


def test_what_is_believed_narrows_with_every_trial():
    belief = Belief(1, 1_000)
    before = belief.estimate()
    assert math.isclose(before.per_s, math.sqrt(1_000), rel_tol=0.01)

    belief.learn(100, broke=False)
    belief.learn(200, broke=True)

    found = belief.estimate()
    assert found.width < before.width
    assert 100 < found.per_s < 200
