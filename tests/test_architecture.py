"""The shape of the house: imports point one way, from the edge to the leaves, without a circle."""

import ast
import graphlib
from pathlib import Path

import pytest

import cacheproxy

ROOT = Path(cacheproxy.__file__).parent

LAYERS = [
    {"cli", "__main__"},
    {"supervisor", "worker"},
    {"server", "evaluation", "admin_client", "figures"},
    {"app"},
    {"chat_route", "upstream_models"},
    {"api"},
    {"pipeline", "chat", "administration"},
    {"exchange"},
    {"modelkit"},
    {"upstreams"},
    {"tiers"},
    {"thresholds", "probes", "stores", "inference"},
    {"live", "link"},
    {"merged_metrics", "tracing"},
    {"stages"},
    {"recorder"},
    {"config"},
    {"settings", "metrics", "visit"},
    {
        "keys",
        "records",
        "counting",
        "namespace_gauges",
        "errors",
        "gil",
        "jobthread",
        "scheduling",
        "device",
        "listeners",
        "logs",
        "",
    },
]
"""From the top to the leaves; a module imports only from its own layer or from below."""


def imports() -> dict[str, set[str]]:
    """Return each module's imports of our own modules, type-checking ones included."""
    modules = {}
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cacheproxy"):
                found.add(node.module)
            elif isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names if alias.name.startswith("cacheproxy")}
        modules[name] = found - {name}
    return modules


def layer_of(module: str) -> int:
    top = [*module.split("."), ""][1]
    return next(i for i, layer in enumerate(LAYERS) if top in layer)


def test_there_is_no_circle_among_imports():
    try:
        graphlib.TopologicalSorter(imports()).prepare()
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
