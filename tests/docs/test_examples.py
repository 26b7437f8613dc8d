"""The examples that readers copy do what the pages show, against a real server.

The examples of one page run in their order, on a server and a store of the page's own. What a page
shows is compared line by line. Free are numbers with a fraction or of five digits and more, sizes,
counts of labels, hex digests, and lines that the page leaves out.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pages import PAGES, Example, examples, name_of
from server_process import Server
from upstream import Upstream

PUBLIC, ADMIN = "http://127.0.0.1:8080", "http://127.0.0.1:9090"

FREE = re.compile(r"[0-9a-f]{16,}|-?\d+\.\d+(?:e-?\d+)?|\d{5,}|\d+(?= kB| labels| more)")

WITH_EXAMPLES = [page for page in PAGES if any(examples(page))]


@pytest.fixture(scope="module")
def programs(tmp_path_factory) -> Path:
    """A folder with `cacheproxy`, as an installation has it on the PATH."""
    folder = tmp_path_factory.mktemp("bin")
    program = folder / "cacheproxy"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m cacheproxy "$@"\n')
    program.chmod(0o755)
    return folder


class Reader:
    """Somebody who copies the examples of a page into a shell, one after the other."""

    def __init__(self, server: Server, environment: dict[str, str]) -> None:
        self._server, self._environment = server, environment
        self._entry = ""

    def run(self, example: Example) -> str:
        """Return what the example prints."""
        source = example.source.replace(PUBLIC, self._server.url)
        source = source.replace(ADMIN, self._server.admin_url.removesuffix("/admin"))
        if self._entry:
            source = re.sub(r"\b[0-9a-f]{64}\b", self._entry, source)
        shell = ["bash", "-euo", "pipefail"] if example.language == "sh" else [sys.executable]
        done = subprocess.run(
            [*shell, "-c", source],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        found = re.search(r"x-cacheproxy-entry: ([0-9a-f]{64})", done.stdout)
        self._entry = found[1] if found else self._entry
        return done.stdout


def missing_lines(shown: str, printed: str) -> list[str]:
    """Return the lines of a page that were not printed, in the order that the page has."""
    rest = iter([_plain(line) for line in printed.splitlines()])
    lines = [line for line in shown.splitlines() if line.strip() not in ("", "…")]
    return [line for line in lines if _plain(line) not in rest]


def _plain(line: str) -> str:
    return " ".join(FREE.sub("#", line).split())


@pytest.mark.parametrize("page", WITH_EXAMPLES, ids=name_of)
def test_the_examples_of_a_page_print_what_it_shows(page, model_home, programs, tmp_path):
    store = f"sqlite:///{tmp_path / 'cache.sqlite'}"
    upstream = Upstream()
    flags = ["--drain-s", "0", "--admin-port", "0", "--upstream", upstream.url]
    server = Server(model_home, store, *flags)
    environment = {
        **os.environ,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "CACHEPROXY_HOME": str(model_home),
        "CACHEPROXY_STORE": store,
    }
    try:
        reader = Reader(server, environment)
        for example in examples(page):
            printed = reader.run(example)
            if example.output is not None:
                missing = missing_lines(example.output, printed)
                assert not missing, f"{example.page}:{example.line} printed:\n{printed}"
    finally:
        server.stop()
        upstream.stop()


def test_a_difference_in_a_status_or_an_outcome_is_noticed():
    printed = "HTTP/1.1 200 OK\ndate: now\ncache-status: cacheproxy; hit; ttl=581886; detail=hot\n"

    assert (
        missing_lines(
            "HTTP/1.1 200 OK\ncache-status: cacheproxy; hit; ttl=99999; detail=hot", printed
        )
        == []
    )
    assert missing_lines("HTTP/1.1 404 Not Found", printed)
    assert missing_lines("cache-status: cacheproxy; hit; ttl=581886; detail=exact", printed)


def test_readme_and_quickstart_are_among_the_pages_with_examples():
    assert {"README.md", "docs/quickstart.md"} <= {name_of(page) for page in WITH_EXAMPLES}
