"""Which lone groups are spread over all cores: those that are faster so, length by length."""

import pytest

from cacheproxy.inference.spread import Spread


def ran(spread: Spread, tokens: int, *, one: float, all_cores: float) -> list[bool]:
    """Run a thousand groups that take so many seconds; return which of them were spread."""
    ways = []
    for _ in range(1_000):
        way = spread.is_worth_it(tokens)
        spread.took(tokens, all_cores if way else one, spread=way)
        ways.append(way)
    return ways


@pytest.mark.parametrize(("all_cores", "most"), [(0.5, True), (2.0, False)])
def test_groups_run_the_faster_way_and_the_other_is_tried_now_and_then(all_cores, most):
    ways = ran(Spread(), 64, one=1.0, all_cores=all_cores)

    others = [i for i, way in enumerate(ways) if way is not most]
    assert 5 <= len(others) <= 8
    assert others[-1] > 500


def test_what_is_faster_for_long_groups_is_not_assumed_of_short_ones():
    spread = Spread()

    long = ran(spread, 256, one=8.0, all_cores=4.0)
    short = ran(spread, 16, one=1.0, all_cores=2.0)

    assert sum(long) > 990
    assert sum(short) < 10


def test_a_machine_that_changes_is_noticed():
    spread = Spread()
    ran(spread, 64, one=1.0, all_cores=0.5)

    ways = ran(spread, 64, one=1.0, all_cores=2.0)

    assert not any(ways[600:650])


def test_one_slow_group_changes_nothing():
    spread = Spread()
    ran(spread, 64, one=1.0, all_cores=0.5)

    spread.took(64, 50.0, spread=True)

    assert spread.is_worth_it(64)
