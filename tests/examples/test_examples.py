"""The applications under docs/examples: started, used and tested as their pages say."""

import ast
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from example_application import EXAMPLES, Application
from reranking import NAME as RERANKER
from reranking import home_with_reranker
from server_process import Server
from upstream import Upstream

MODEL = "all-MiniLM-L6-v2"


@pytest.fixture(scope="module")
def proxy(model_home, tmp_path_factory) -> Iterator[Server]:
    """A proxy with a reranker, in front of a scripted chat model."""
    home = home_with_reranker(tmp_path_factory.mktemp("home"), model_home)
    upstream = Upstream()
    flags = ("--model", MODEL, "--model", RERANKER, "--upstream", upstream.url)
    server = Server(home, "memory://", "--drain-s", "0", *flags)
    yield server
    server.stop()
    upstream.stop()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@contextmanager
def started(application: Application, changed: dict[str, str], url: str) -> Iterator[None]:
    """Start an application as its page says, wait until it answers, and end it."""
    log = application.folder / "started.log"
    process = application.start("start", log, changed)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                httpx.get(url)
                break
            except httpx.TransportError:
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait(30)


def test_highlights(proxy, python_application, tmp_path):
    port = free_port()
    application = python_application(
        "highlights", CACHEPROXY_URL=proxy.url, PGDATA=str(tmp_path / "pgdata")
    )
    changed = {"127.0.0.1:8000": f"127.0.0.1:{port}", "manage.py start": f"manage.py start {port}"}

    assert "Ran " in application.run("test")
    with started(application, changed, f"http://127.0.0.1:{port}/"):
        deadline = time.monotonic() + 60
        while '"similarity"' not in (printed := application.run("use", changed)):
            assert time.monotonic() < deadline, printed
        printed = application.run("use", changed)
    assert '"imported": 0' in printed  # it was imported before
    assert '"embedded": 1' in printed
    assert not (tmp_path / "pgdata" / "postmaster.pid").exists()  # the database has ended


def test_library(proxy, python_application):
    port = free_port()
    application = python_application("library", CACHEPROXY_URL=proxy.url)
    changed = {"8001": str(port)}

    assert "Ran " in application.run("test")
    application.run("load")
    with started(application, changed, f"http://127.0.0.1:{port}/search?q=x"):
        printed = application.run("use", changed)
    assert '"by_words_alone":false' in printed
    assert printed.count('"signals"') == 6
    assert '{"opened":1}' in printed


def test_the_library_is_measured(proxy, python_application, tmp_path):
    application = python_application("library", CACHEPROXY_URL=proxy.url)
    queries = tmp_path / "queries.jsonl"
    queries.write_text("".join(f'{{"text": "question number {i}"}}\n' for i in range(30)))
    command = ["python", "bench.py", "../../index.md", "../../chat.md", "--queries", queries]
    done = subprocess.run(
        [*command, "--chunks", "300", "--port", str(free_port())],
        cwd=application.folder,
        env=application.environment,
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert done.returncode == 0, done.stderr
    assert "loaded 300 chunks" in done.stdout
    assert "search, new questions: p50" in done.stdout
    assert "memory: application" in done.stdout


def test_rag_chat(proxy, python_application):
    application = python_application("rag-chat", CACHEPROXY_URL=proxy.url)

    assert "Ran 2 tests" in application.run("test")
    assert application.run("start").count("\ncache: ") == 2


def test_every_application_has_a_page_that_says_how_to_start_and_test():
    folders = [path for path in EXAMPLES.iterdir() if path.is_dir()]

    assert len(folders) == 4
    for folder in folders:
        page = (folder / "README.md").read_text()
        assert "<!-- start -->" in page
        assert "<!-- test -->" in page
        assert len(page.splitlines()) < 90


@pytest.mark.parametrize("name", ["highlights", "library", "rag-chat"])
def test_what_an_application_imports_is_in_its_requirements(name):
    # CI installs the requirements of all into one environment, where one may use another's.
    files = list((EXAMPLES / name).rglob("*.py"))
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text()))]
    imported = {
        alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names
    }
    imported |= {
        node.module for node in nodes if isinstance(node, ast.ImportFrom) and not node.level
    }
    own = {path.stem for path in (EXAMPLES / name).rglob("*")}
    required = re.findall(r"^[\w-]+", (EXAMPLES / name / "requirements.txt").read_text(), re.M)

    foreign = {module.split(".")[0] for module in imported} - set(sys.stdlib_module_names) - own
    packages = {module.lower().replace("_", "-") for module in foreign}
    assert packages
    missing = {
        one for one in packages if not any(f"{r.lower()}-".startswith(f"{one}-") for r in required)
    }
    assert not missing
