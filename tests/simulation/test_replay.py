"""A seed replays exactly, in any process; a failing one is made smaller."""

import os
import subprocess
import sys

import pytest

from tests.simulation.plan import make_plan
from tests.simulation.run import run
from tests.simulation.search import first_failure, shrink


def _digests(hash_seed: str) -> str:
    command = [sys.executable, "-m", "tests.simulation", "--seeds", "60", "--digests"]
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_seed_happens_the_same_way_in_every_process():
    assert _digests("1") == _digests("2")


def test_a_seed_happens_the_same_way_whatever_ran_before():
    before = [run(make_plan(seed)).digest for seed in range(20)]
    after = [run(make_plan(seed)).digest for seed in reversed(range(20))]

    assert before == after[::-1]


@pytest.mark.parametrize("seed", [109_003, 148_346, 172_141])
def test_a_seed_that_failed_once_breaks_no_rule(seed):
    assert not run(make_plan(seed)).broken


def test_a_failing_seed_is_shrunk_to_what_it_needs():
    seed = first_failure(10, "plain", 2_000, start=116)
    assert seed is not None
    plan = make_plan(seed)
    smaller = shrink(plan, bug=10)

    assert len(smaller.steps) < len(plan.steps) / 2
    assert any(step.what == "refuse" for step in smaller.steps)
