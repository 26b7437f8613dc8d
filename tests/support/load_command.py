"""`python -m loadtest` as a user runs it."""

import json
import subprocess
import sys
from pathlib import Path


def loadtest(*arguments) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "loadtest", *(str(part) for part in arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def write_scenario(folder: Path, streams: str, *, seconds: float = 1, more: str = "") -> Path:
    path = folder / "mine.toml"
    path.write_text(
        f'about = "a test\'s"\n{more}\n[[phases]]\nname = "only"\nseconds = {seconds}\n{streams}\n'
    )
    return path


def read_json(path: Path) -> dict:
    return json.loads(path.read_text())
