"""Every parser that sees bytes from outside does what it promises with the inputs that are kept.

Inputs that broke one are among them, as are small sets that reach much of each. A short search by
coverage follows; `python tests/fuzz/run.py` searches for longer.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fuzzing import TARGETS

HERE = Path(__file__).parent
SEARCH_S = 6


def test_every_target_has_inputs_and_all_inputs_a_target():
    assert {folder.name for folder in (HERE / "corpus").iterdir()} == set(TARGETS)


@pytest.mark.parametrize("name", TARGETS)
def test_a_parser_keeps_its_promises_on_the_inputs_that_are_kept(name):
    for path in sorted((HERE / "corpus" / name).iterdir()):
        TARGETS[name](path.read_bytes())


def test_a_short_search_breaks_no_parser(tmp_path):
    if importlib.util.find_spec("atheris") is None:
        if os.environ.get("CI"):
            pytest.fail("the extra 'fuzz' is not installed")
        pytest.skip("the extra 'fuzz' is not installed")
    command = [sys.executable, str(HERE / "run.py"), "mixed", "--seconds", str(SEARCH_S)]
    ran = subprocess.run(
        [*command, "--seed", "1", "--found", str(tmp_path)], capture_output=True, text=True
    )

    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "Done" in ran.stdout
