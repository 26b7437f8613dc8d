"""Every load test and benchmark that README and docs show exists; those on a server are run.

`test_smoke.py` runs all scenarios and benchmarks, whether or not the docs show them.
"""

import gzip
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from load_command import ROOT, loadtest
from server_process import Server

from loadtest.cli import main
from loadtest.traffic.scenario import load_scenario

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
SHOWN = re.compile(r"(?:cacheproxy|python -m) loadtest +([a-z][^#`]*)")


def commands(text: str) -> Iterator[str]:
    """Yield what follows `loadtest` in the code blocks and the code spans of a page."""
    lines = [line for block in BLOCK.findall(text) for line in block.splitlines()]
    spans = re.findall(r"`([^`]+)`", BLOCK.sub("", text))
    for code in (*lines, *spans):
        for found in SHOWN.findall(code):
            if "[OPTIONS]" not in found:  # usage lines, which the reference takes from the code
                yield " ".join(found.split())


COMMANDS = sorted({command for page in PAGES for command in commands(page.read_text())})

URL = "http://127.0.0.1:8080"
RUN = [
    command
    for command in COMMANDS
    if URL in command or (command.startswith(("compare ", "export ")) and "--push" not in command)
]


@pytest.fixture(scope="module")
def workplace(model_home, tmp_path_factory) -> Iterator[tuple[Server, Path]]:
    """A server, and a folder with the files that the pages name."""
    folder = tmp_path_factory.mktemp("work")
    texts = "".join(f'{{"text": "question number {i} of the docs"}}\n' for i in range(50))
    (folder / "questions.jsonl").write_text(texts)
    (folder / "corpus.jsonl").write_text(texts)
    arrivals = "arrival_ms\n" + "".join(f"{2_000 * i}\n" for i in range(50))
    (folder / "trace.csv.gz").write_bytes(gzip.compress(arrivals.encode()))
    recording = folder / "requests.jsonl"
    server = Server(model_home, "memory://", "--drain-s", "0", "--record-path", str(recording))
    done = loadtest(*("run", "--url", server.url, "--smoke", "--json", "a.json"), folder=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    shutil.copy(folder / "a.json", folder / "b.json")
    yield server, folder
    server.stop()


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_that_the_docs_show_exists(line, workplace, monkeypatch):
    monkeypatch.chdir(workplace[1])
    command: click.Command | None = main
    words = shlex.split(line)

    while isinstance(command, click.Group) and words:
        name = words.pop(0)
        command = command.get_command(click.Context(command), name)
        assert command is not None, name
    if isinstance(command, click.Group) or not words:
        return  # only named, not shown with its flags
    parameters = command.make_context(name, words).params

    if name == "run":
        load_scenario(parameters["name"])


@pytest.mark.parametrize("line", RUN)
def test_a_command_on_a_server_runs(line, workplace):
    server, folder = workplace
    words = shlex.split(line.replace(URL, server.url))

    done = loadtest(
        *words, *(["--smoke"] if words[0] in ("run", "find-limit") else []), folder=folder
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_the_docs_show_how_to_run_compare_and_replay():
    assert {command.split()[0] for command in RUN} >= {"run", "compare", "replay"}
