"""`python -m loadtest` as a user runs it."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def loadtest(
    *arguments, folder: Path | None = None, timeout_s: float = 120
) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "loadtest", *(str(part) for part in arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=timeout_s, cwd=folder, env=environment
    )


def write_scenario(folder: Path, streams: str, *, seconds: float = 1, more: str = "") -> Path:
    path = folder / "mine.toml"
    path.write_text(
        f'about = "a test\'s"\n{more}\n[[phases]]\nname = "only"\nseconds = {seconds}\n{streams}\n'
    )
    return path


def read_json(path: Path) -> dict:
    return json.loads(path.read_text())
