"""The model's own mutation score: each of its rules notices something that no other rule does."""

import pytest

from tests.simulation.model import RULES
from tests.simulation.mutations import MUTATIONS
from tests.simulation.plan import make_plan
from tests.simulation.run import run

_SEEDS = 3_000


def test_every_rule_has_a_mutation():
    assert set(MUTATIONS) == set(RULES)


@pytest.mark.parametrize("rule", RULES)
def test_a_mutation_is_noticed_by_one_rule_alone(rule):
    mutate, kind, start = MUTATIONS[rule]
    with mutate():
        for plan in map(make_plan, (*range(start, _SEEDS), *range(start))):
            if plan.kind != kind or {broken for broken, _ in run(plan).broken} != {rule}:
                continue
            assert not run(plan, without=rule).broken
            return
    pytest.fail(f"nothing breaks the rule {rule} alone")
