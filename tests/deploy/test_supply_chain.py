"""What is installed and shipped is what was meant: locked, of known licences, reproducible."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCKS = {
    "requirements.lock": ("otel", "encryption"),
    "ci.lock": ("docs", "encryption", "eval", "fuzz", "loadtest", "otel", "test"),
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

ALLOWED = {
    *("0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "CNRI-Python", "ISC"),
    *("MIT", "MIT-0", "MPL-2.0", "PSF-2.0", "Unicode-3.0", "Zlib"),
}
"""Licences of what is shipped: permissive, or MPL-2.0 for files that are used as they are."""

SAID_OTHERWISE = {
    "Apache 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "3-Clause BSD License": "BSD-3-Clause",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}


def locked(name: str) -> list[tuple[Requirement, str]]:
    """Return the requirements of a lock, each with its lines."""
    parts = re.split(r"^(?=[a-z0-9])", (ROOT / "deploy" / name).read_text(), flags=re.MULTILINE)
    return [(Requirement(part.split(" \\")[0]), part) for part in parts if part.strip()]


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_has_one_version_and_hashes_for_each_package_and_no_host(name):
    for requirement, lines in locked(name):
        assert re.fullmatch(r"==[^,]+", str(requirement.specifier)), requirement
        assert re.search(r"--hash=sha256:[0-9a-f]{64}\n", lines), requirement
    assert "://" not in (ROOT / "deploy" / name).read_text()
    assert not {"torch", "transformers"} & {requirement.name for requirement, _ in locked(name)}


@pytest.mark.parametrize(("name", "extras"), LOCKS.items())
def test_a_lock_satisfies_what_the_project_needs(name, extras):
    versions = {
        canonicalize_name(one.name): one.specifier
        for one, _ in locked(name)
        if one.marker is None or one.marker.evaluate()
    }
    optional = PROJECT["optional-dependencies"]
    needed = [*PROJECT["dependencies"], *(one for extra in extras for one in optional[extra])]
    for requirement in map(Requirement, needed):
        if requirement.name == PROJECT["name"] or not is_for_us(requirement):
            continue
        (pin,) = versions[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(pin.version), f"{requirement}: {pin}; .ci/lock"


def is_for_us(requirement: Requirement) -> bool:
    return requirement.marker is None or requirement.marker.evaluate(default_environment())


def test_what_the_server_needs_has_a_version_that_it_does_not_reach():
    without = [
        one for one in map(Requirement, PROJECT["dependencies"]) if "<" not in str(one.specifier)
    ]
    assert without == []


def test_everything_that_is_shipped_has_an_allowed_licence():
    refused = {}
    for requirement, _ in locked("requirements.lock"):
        try:
            about = metadata(requirement.name)
        except PackageNotFoundError:
            assert requirement.marker is not None  # for another system, or another Python
            continue
        licences = licences_of(about)
        if not licences or not licences <= ALLOWED:
            refused[requirement.name] = licences
    assert refused == {}


def licences_of(about) -> set[str]:
    """Return the licences that a distribution names; of an alternative (OR) all."""
    if expression := about.get("License-Expression"):
        return set(re.split(r" AND | OR ", re.sub(r"[()]", "", expression)))
    named = [one.split(" :: ")[-1] for one in about.get_all("Classifier") or [] if "License" in one]
    text = (about.get("License") or "").splitlines()[:1]
    found = text if text and not named else named
    return {
        part
        for one in found
        for part in re.split(r" AND | OR ", SAID_OTHERWISE.get(one.strip(), one.strip()))
    }


def test_a_bill_of_materials_names_all_that_the_image_installs():
    lock = ROOT / "deploy" / "requirements.lock"
    command = [sys.executable, "-m", "cyclonedx_py", "requirements", "--output-reproducible"]
    done = subprocess.run([*command, lock], capture_output=True, check=True, text=True)
    bill = json.loads(done.stdout)

    assert bill["bomFormat"] == "CycloneDX"
    named = {canonicalize_name(one["name"]) for one in bill["components"]}
    assert named == {canonicalize_name(requirement.name) for requirement, _ in locked(lock.name)}
    assert all(one["externalReferences"] or one["purl"] for one in bill["components"])


def test_the_bill_names_what_is_vendored_as_it_is(tmp_path):
    bill = tmp_path / "sbom.cdx.json"
    bill.write_text('{"bomFormat": "CycloneDX", "components": [{"name": "numpy"}]}')
    subprocess.run([sys.executable, ROOT / "deploy" / "sbom.py", bill, ROOT], check=True)

    first, *vendored = json.loads(bill.read_text())["components"]
    assert first == {"name": "numpy"}
    assert [one["name"] for one in vendored] == [
        "uPlot",
        "tiktoken cl100k_base",
        "tiktoken o200k_base",
    ]
    assert vendored[0]["purl"] == "pkg:npm/uplot@1.6.32"
    assert {one["licenses"][0]["license"]["id"] for one in vendored} <= ALLOWED
    hashes = {one["hashes"][0]["content"] for one in vendored}
    # A folder with a licence of its own is somebody else's work, and all of it is named.
    for licence in [*(ROOT / "cacheproxy").rglob("LICENSE"), *(ROOT / "loadtest").rglob("LICENSE")]:
        files = [
            file
            for file in licence.parent.iterdir()
            if file.suffix in {".js", ".xz"} and file.stat().st_size
        ]
        assert files
        assert {hashlib.sha256(file.read_bytes()).hexdigest() for file in files} <= hashes


def test_a_wheel_is_the_same_bytes_wherever_it_is_built(tmp_path):
    wheels = []
    for folder in ("one", "another/folder"):
        source = tmp_path / folder
        names = ("cacheproxy", "loadtest", "models", "pyproject.toml", "README.md", "LICENSE")
        for name in names:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile
            target = source / name
            target.parent.mkdir(parents=True, exist_ok=True)
            copy(ROOT / name, target)  # with times of its own
        command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel"]
        subprocess.run(command, cwd=source, check=True, capture_output=True)
        (wheel,) = (source / "dist").glob("*.whl")
        wheels.append((wheel.name, wheel.read_bytes()))

    assert wheels[0] == wheels[1]
