"""A reader of the examples: a copy of an application, and its README's commands word for word."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from pages import ROOT

EXAMPLES = ROOT / "docs" / "examples"

_COMMANDS = re.compile(r"^<!-- (\w+) -->\n```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def example_environment() -> Path:
    """Return the virtual environment of the applications; skip or fail where there is none."""
    given = os.environ.get("CACHEPROXY_TEST_CLIENTS")
    if given is None:
        if os.environ.get("CI"):
            pytest.fail("CACHEPROXY_TEST_CLIENTS is not set")
        pytest.skip("CACHEPROXY_TEST_CLIENTS names no environment with the examples' packages")
    return Path(given)


class Application:
    """One application, copied with the pages beside it, and the commands that its page shows."""

    def __init__(self, name: str, folder: Path, environment: dict[str, str]) -> None:
        shutil.copytree(EXAMPLES / name, folder / "docs" / "examples" / name)
        for page in (ROOT / "docs").glob("*.md"):
            shutil.copy(page, folder / "docs")
        self.folder = folder / "docs" / "examples" / name
        self.environment = environment
        self.commands = dict(_COMMANDS.findall((self.folder / "README.md").read_text()))

    def run(self, name: str, changed: dict[str, str] | None = None) -> str:
        """Run a block of the page, with parts of it replaced, and return what it prints."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", _replaced(self.commands[name], changed or {})],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout + done.stderr

    def start(
        self, name: str, log: Path, changed: dict[str, str] | None = None
    ) -> subprocess.Popen:
        """Start a block of the page."""
        return subprocess.Popen(
            ["bash", "-c", "exec " + _replaced(self.commands[name], changed or {})],
            cwd=self.folder,
            env=self.environment,
            stdout=log.open("w"),
            stderr=subprocess.STDOUT,
        )


def _replaced(command: str, changed: dict[str, str]) -> str:
    for address, other in changed.items():
        command = command.replace(address, other)
    return command
