"""Ten thousand seeds, and the bugs of the past, each of which the simulation finds by itself."""

import os
import subprocess
import sys

import pytest

from tests.simulation.search import first_failure, search

_SEEDS = 10_000

_WORLDS = {1: "evidence", 6: "evidence", 8: "embedded", 9: "plain", 10: "plain"}
"""In which kind of world to look for each bug; seeds of other kinds are passed over."""


def test_no_seed_breaks_a_rule():
    processes = str(min(2, len(os.sched_getaffinity(0))))
    command = [sys.executable, "-m", "tests.simulation", "--seeds", str(_SEEDS)]
    command += ["--processes", processes]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("bug", _WORLDS)
def test_a_bug_that_is_put_back_is_found(bug):
    seed = first_failure(bug, _WORLDS[bug], _SEEDS)

    assert seed is not None
    assert not search(range(seed, seed + 1)).failures
