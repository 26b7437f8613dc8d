"""The shape of the house: imports point one way, from the edge to the leaves, without a circle."""

import ast
import graphlib
from pathlib import Path

import pytest

import cacheproxy

ROOT = Path(cacheproxy.__file__).parent
LOAD_TESTER = ROOT.parent / "loadtest"

MOST_LOOSE_MODULES, MOST_FILES_A_FOLDER, MOST_LINES_A_FILE = 8, 16, 400

LAYERS = [
    {"__main__"},
    {"cli"},
    {"moving"},
    {"server"},
    {"ingest"},
    {"admin"},
    {"api"},
    {"evaluation"},
    {"routes"},
    {"upstreams"},
    {"tiers"},
    {"modelkit"},
    {"probes"},
    {"thresholds"},
    {"inference"},
    {"stores"},
    {"telemetry"},
    {"settings"},
    {"concurrency", "fairness"},
    {"errors", "keys", "records", "validation", ""},
]
"""From the top to the leaves; a module imports only from its own layer or from below."""


def imports(package: Path = ROOT) -> dict[str, set[str]]:
    """Return each module's imports of the package's modules, type-checking ones included."""
    modules = {}
    for path in package.rglob("*.py"):
        parts = path.relative_to(package.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                base = ".".join(parts[: len(parts) - node.level]) if node.level else ""
                found.add(".".join(filter(None, (base, node.module))))
            elif isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
        found = {imported for imported in found if imported.split(".")[0] == package.name}
        modules[name] = found - {name}
    return modules


def layer_of(module: str) -> int:
    top = [*module.split("."), ""][1]
    return next(i for i, layer in enumerate(LAYERS) if top in layer)


@pytest.mark.parametrize("package", [ROOT, LOAD_TESTER], ids=lambda package: package.name)
def test_there_is_no_circle_among_imports(package):
    try:
        graphlib.TopologicalSorter(imports(package)).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"a circle: {' -> '.join(error.args[1])}")


def test_imports_point_from_the_edge_to_the_leaves():
    upward = [
        f"{module} imports {imported}"
        for module, found in imports().items()
        for imported in found
        if layer_of(imported) < layer_of(module)
    ]

    assert upward == []


@pytest.mark.parametrize("package", [ROOT, LOAD_TESTER], ids=lambda package: package.name)
def test_a_package_has_few_loose_modules_and_no_crowded_folder(package):
    folders = [package, *(path for path in package.rglob("*") if path.is_dir())]
    crowded = {
        str(folder.relative_to(package)): count
        for folder in folders
        if (count := len([path for path in folder.glob("*.py") if path.name != "__init__.py"]))
        > (MOST_LOOSE_MODULES if folder == package else MOST_FILES_A_FOLDER)
    }

    assert crowded == {}


def test_no_file_is_longer_than_a_reader_can_hold():
    repository = ROOT.parent
    files = [
        path
        for folder in ("cacheproxy", "loadtest", "tests", "deploy", "docs")
        for path in (repository / folder).rglob("*.py")
    ]
    lengths = {str(path.relative_to(repository)): len(path.open().readlines()) for path in files}

    assert {name: lines for name, lines in lengths.items() if lines > MOST_LINES_A_FILE} == {}
