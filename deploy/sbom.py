"""Adds to a bill of materials what is shipped inside the packages: `python sbom.py BILL FOLDER`.

BILL is a CycloneDX file of the installed packages, which is rewritten; FOLDER has the packages.
Their metadata does not tell what they carry of others' files.
"""

import hashlib
import json
import re
import sys
from pathlib import Path
from typing import Any

_UPLOT = "loadtest/results/page/uplot/uPlot.iife.min.js"
_VOCABULARIES = "inference/openai_vocabularies"


def main(bill: Path, folder: Path) -> None:
    """Rewrite the bill."""
    content = json.loads(bill.read_text())
    content.setdefault("components", []).extend(vendored(folder))
    bill.write_text(json.dumps(content, indent=2) + "\n")


def vendored(folder: Path) -> list[dict[str, Any]]:
    """Return the components that are vendored somewhere below a folder.

    Raises:
        SystemExit: a file is not there, or does not say its version.
    """
    script = _find(folder, _UPLOT)
    head = script.open(encoding="utf-8").readline()
    version = re.search(r"\(v([\d.]+)\)", head)
    if version is None:
        raise SystemExit(f"{script} does not say its version")
    components = [
        _component("uPlot", script, f"pkg:npm/uplot@{version[1]}", version=version[1]),
    ]
    for name in ("cl100k_base", "o200k_base"):
        file = _find(folder, f"{_VOCABULARIES}/{name}.tiktoken.xz")
        components.append(_component(f"tiktoken {name}", file, None))
    return components


def _component(
    name: str, file: Path, purl: str | None, version: str | None = None
) -> dict[str, Any]:
    component: dict[str, Any] = {
        "type": "library" if purl else "data",
        "bom-ref": f"vendored:{name}",
        "name": name,
        "description": "vendored, unchanged" if purl else "vendored, compressed",
        "licenses": [{"license": {"id": "MIT"}}],
        "hashes": [{"alg": "SHA-256", "content": hashlib.sha256(file.read_bytes()).hexdigest()}],
    }
    if purl:
        component |= {"version": version, "purl": purl}
    return component


def _find(folder: Path, end: str) -> Path:
    found = next(folder.rglob(end), None)
    if found is None:
        raise SystemExit(f"there is no {end} below {folder}")
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
