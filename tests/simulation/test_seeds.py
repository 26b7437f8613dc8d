"""Ten thousand seeds, and the bugs of the past, each of which the simulation finds by itself."""

import os
import subprocess
import sys

import pytest

from tests.simulation.plan import Kind, make_plan
from tests.simulation.run import run
from tests.simulation.search import first_failure

_SEEDS = 10_000

_FOUND: dict[int, tuple[Kind, int]] = {
    1: ("evidence", 600),
    5: ("chat", 2_100),
    6: ("evidence", 2_650),
    8: ("embedded", 1_144),
    9: ("plain", 503),
    10: ("plain", 116),
    11: ("plain", 9_500),
}
"""In which kind of world each bug shows, and from which seed on to look for it, to save time."""


def test_no_seed_breaks_a_rule():
    processes = str(min(2, len(os.sched_getaffinity(0))))
    command = [sys.executable, "-m", "tests.simulation", "--seeds", str(_SEEDS)]
    command += ["--processes", processes]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1_200)

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("bug", _FOUND)
def test_a_bug_that_is_put_back_is_found(bug):
    kind, start = _FOUND[bug]
    seed = first_failure(bug, kind, _SEEDS, start=start)

    assert seed is not None
    assert not run(make_plan(seed)).broken
