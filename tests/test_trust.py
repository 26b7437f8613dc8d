"""What `docs/trust.md` says of tests is true; and rules about the package's own text."""

import ast
import re
from functools import lru_cache
from pathlib import Path

import pytest

import cacheproxy

ROOT = Path(__file__).parents[1]
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (ROOT / "docs" / "trust.md").read_text().splitlines()
    if re.match(r"\| [PSF]\d", line)
]
NAMES = [f"P{n}" for n in range(1, 11)]
NAMES += [f"S{n}" for n in range(1, 23)] + [f"F{n}" for n in range(1, 44)]

FORBIDDEN = {"pickle", "marshal", "shelve", "dill", "jsonpickle", "yaml"}
EXECUTES = {"eval", "exec", "compile", "__import__"}
OWN_PROCESSES = {"server/link.py"}
"""Uses pickle over a socket pair between a supervisor and the workers that it started."""


def test_every_promise_threat_and_fault_has_its_row():
    assert [row[0] for row in ROWS] == NAMES


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_row_names_tests_that_exist_or_says_that_there_is_none(row):
    named = re.findall(r"`(tests/\S+?)::(test_\w+)`", row[2])
    for path, name in named:
        functions = (ROOT / path).read_text()
        assert re.search(rf"^\s*(async )?def {name}\(", functions, re.MULTILINE), f"{path}::{name}"
    assert named or (row[2] == "no test" and row[3])


@lru_cache
def modules() -> dict[str, ast.Module]:
    package = Path(cacheproxy.__file__).parent
    return {
        str(path.relative_to(package)): ast.parse(path.read_text())
        for path in package.rglob("*.py")
    }


def test_nothing_that_was_stored_is_executed():
    found = set()
    for name, tree in modules().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                imported = [alias.name for alias in node.names] + [
                    getattr(node, "module", "") or ""
                ]
                if FORBIDDEN & {one.split(".")[0] for one in imported}:
                    found.add(name)
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                found |= {name} if node.func.id in EXECUTES else set()
    assert found == OWN_PROCESSES


def test_secrets_are_compared_in_constant_time():
    # A token by `compare_digest`; a key by its hash, of which nobody can choose the beginning.
    token, key = (
        next(
            ast.unparse(node)
            for node in ast.walk(modules()[name])
            if isinstance(node, ast.FunctionDef) and node.name == function
        )
        for name, function in (
            ("admin/operators.py", "identify"),
            ("api/access/key_ring.py", "find"),
        )
    )
    assert "hmac.compare_digest(given" in token
    assert "hash_key(" in key
    assert " == " not in key
