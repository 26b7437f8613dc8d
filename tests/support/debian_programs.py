"""Programs of Debian's for tests: this machine's own, or else fetched by apt and unpacked.

Nothing is installed: a package, and what it needs that is not installed here, is unpacked into a
folder under the tests' home, where the next run finds it. apt checks the signatures.
"""

import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import platformdirs
import pytest
from filelock import FileLock


class NoProgram(Exception):
    """The program is not on this machine, and apt could not fetch it."""


@dataclass(frozen=True)
class Program:
    """A program that can be run with this environment."""

    path: Path
    environment: dict[str, str]


def need_program(name: str, package: str, path: str, *, with_depends: bool) -> Program:
    """Return a program; where there can be none, fail in CI and skip the test elsewhere.

    Args:
        name: of the program, as on the PATH.
        package: Debian's, that has it.
        path: of the program in the package.
        with_depends: whether the packages that it needs are wanted, too.
    """
    if found := shutil.which(name):
        return Program(Path(found), dict(os.environ))
    try:
        root = _fetched(package, with_depends=with_depends)
    except NoProgram as reason:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(reason))
    libraries = {str(file.parent) for file in (root / "usr/lib").rglob("*.so*")}
    environment = {**os.environ, "LD_LIBRARY_PATH": ":".join(sorted(libraries))}
    return Program(root / path, environment if with_depends else dict(os.environ))


def need_file(package: str, path: str) -> Path:
    """Return a file of a Debian package, which is unpacked; fail or skip as `need_program`.

    `path` is a pattern, because libraries are in a folder that is named for the machine.
    """
    try:
        root = _fetched(package, with_depends=False)
    except NoProgram as reason:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(reason))
    return next(root.glob(path))


def _fetched(package: str, *, with_depends: bool) -> Path:
    home = Path(os.environ.get("CACHEPROXY_TEST_HOME") or platformdirs.user_cache_dir("cacheproxy"))
    folder = home / "test-programs"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        root = folder / package
        if root.is_dir():
            return root
        if shutil.which("apt-get") is None:
            raise NoProgram(f"{package} is not here, nor apt to fetch it")
        with tempfile.TemporaryDirectory(dir=folder) as work:
            unpacked = Path(work) / "root"
            unpacked.mkdir()
            for deb in _download(package, Path(work), with_depends=with_depends):
                _run("dpkg-deb", "-x", str(deb), str(unpacked))
            unpacked.rename(root)
    return root


def _download(package: str, work: Path, *, with_depends: bool) -> list[Path]:
    """Return the package's files; its lists are brought up to date if they do not have it."""
    try:
        return _try_download(package, work, with_depends=with_depends)
    except NoProgram:
        if os.geteuid() != 0:
            raise
    _run("apt-get", "update", "-qq")
    return _try_download(package, work, with_depends=with_depends)


def _try_download(package: str, work: Path, *, with_depends: bool) -> list[Path]:
    names = [package]
    if with_depends:
        plan = _run("apt-get", "install", "-s", "--no-install-recommends", package)
        names = [line.split()[1] for line in plan.splitlines() if line.startswith("Inst ")]
    # Not as the user _apt, who may not write here: files are checked all the same.
    _run("apt-get", "-o", "APT::Sandbox::User=root", "download", "-qq", *names, cwd=work)
    return sorted(work.glob("*.deb"))


def _run(*command: str, cwd: Path | None = None) -> str:
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=300)
    if done.returncode:
        raise NoProgram(f"{' '.join(command[:4])} failed: {done.stderr.strip()[-500:]}")
    return done.stdout
