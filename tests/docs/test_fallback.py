"""The programs of docs/fallback.md, against a proxy that is killed, and started again."""

import os
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from go_toolchain import go_environment
from pages import ROOT
from server_process import Server

MODEL = "all-MiniLM-L6-v2"
PAUSE_S = 2.0

SOURCES = dict(
    re.findall(
        r"^<!-- fallback -->\n```(\w+)\n(.*?)^```$",
        (ROOT / "docs" / "fallback.md").read_text(),
        re.MULTILINE | re.DOTALL,
    )
)


def missing(what: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(f"{what} is not here")
    pytest.skip(f"{what} is not here")


def python_program(folder: Path) -> list[str]:
    (folder / "fallback.py").write_text(SOURCES["python"])
    return [sys.executable, str(folder / "fallback.py")]


def typescript_program(folder: Path) -> list[str]:
    node = os.environ.get("CACHEPROXY_TEST_NODE_CLIENTS")
    compiler = Path(node or "/nowhere") / "node_modules" / ".bin" / "tsc"
    if not compiler.exists():
        missing("TypeScript's compiler")
    source = folder / "fallback.mts"
    source.write_text(SOURCES["typescript"])
    types = Path(node) / "node_modules" / "@types"
    flags = ["--target", "es2022", "--module", "nodenext", "--strict", "--skipLibCheck"]
    flags += ["--typeRoots", str(types), "--types", "node"]
    done = subprocess.run([compiler, *flags, source], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout
    return ["node", str(source.with_suffix(".mjs"))]


def go_program(folder: Path) -> list[str]:
    (folder / "main.go").write_text(SOURCES["go"])
    program = folder / "fallback"
    done = subprocess.run(
        ["go", "build", "-o", program, "main.go"],
        cwd=folder,
        env=go_environment(),
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    return [str(program)]


class Client:
    """One of the programs, asked a line at a time."""

    def __init__(self, command: list[str], proxy: str, provider: str) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "PROXY_URL": f"{proxy}/v1",
                "PROVIDER_URL": f"{provider}/v1",
                "PROVIDER_KEY": "secret",
                "MODEL": MODEL,
                "PAUSE": str(PAUSE_S),
            },
        )

    def ask(self, text: str) -> tuple[str, float]:
        """Return who answered, and the vector's first number."""
        self._process.stdin.write(text + "\n")
        self._process.stdin.flush()
        name, number = self._process.stdout.readline().split()
        return name, float(number)

    def stop(self) -> None:
        self._process.kill()
        self._process.wait(60)


class Closing:
    """Listens on a port, and closes every connection at once; counts them."""

    def __init__(self, port: int) -> None:
        self.connections = 0
        self._socket = socket.create_server(("127.0.0.1", port))
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                self._socket.accept()[0].close()
            except OSError:
                return
            self.connections += 1

    def stop(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(10)


@pytest.fixture(scope="module")
def provider(model_home):
    server = Server(model_home, "memory://")
    yield server
    server.stop()


@pytest.mark.parametrize("make", [python_program, typescript_program, go_program])
def test_a_program_survives_a_proxy_that_is_killed(make, model_home, provider, tmp_path):
    command = make(tmp_path)
    proxy = Server(model_home, "memory://")
    port = int(proxy.url.rpartition(":")[2])
    client = Client(command, proxy.url, provider.url)
    try:
        _, expected = client.ask("the same text")
        deadline = time.monotonic() + 60  # a busy machine may be slower than two seconds
        while client.ask("the same text") != ("proxy", expected):
            assert time.monotonic() < deadline

        proxy.kill()
        closing = Closing(port)
        began_at = time.monotonic()
        answers = [client.ask("the same text") for _ in range(12)]
        pauses = (time.monotonic() - began_at) / PAUSE_S
        closing.stop()
        assert answers == [("provider", expected)] * 12
        assert closing.connections <= 3 + 1 + pauses  # one: a kept connection that was closed

        proxy = Server(model_home, "memory://", "--port", str(port))
        deadline = time.monotonic() + 60
        while client.ask("the same text") != ("proxy", expected):
            assert time.monotonic() < deadline
    finally:
        client.stop()
        proxy.stop()
