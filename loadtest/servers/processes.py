"""Starts a server as a process of its own, and waits until it is ready."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..errors import LoadTestError

_READY_S = 180.0


@contextmanager
def running_server(home: Path, model: str, *flags: str) -> Iterator[str]:
    """Yield the URL of a new cacheproxy; its cache is in memory unless the flags say otherwise.

    Raises:
        LoadTestError: the server does not become ready.
    """
    store = () if "--store" in flags else ("--store", "memory://")
    port = free_port()
    command = serve_command(home, model, port, *store, *flags)
    with running(command, f"http://127.0.0.1:{port}", "/readyz") as url:
        yield url


def serve_command(home: Path, model: str, port: int, *flags: str) -> list[str]:
    """Return the command that starts a cacheproxy, which stops without draining."""
    command = [sys.executable, "-m", "cacheproxy", "serve", "--port", str(port)]
    return [*command, "--home", str(home), "--model", model, "--drain-s", "0", *flags]


@contextmanager
def running(
    command: Sequence[str],
    url: str,
    path: str,
    environment: Mapping[str, str] | None = None,
    on_start: Callable[[int], None] = lambda _: None,
    log: Path | None = None,
) -> Iterator[str]:
    """Run a server's command, and yield its URL as soon as `path` is answered.

    `on_start` gets the process id, and `log` what it writes to standard error.

    Raises:
        LoadTestError: the server ends, or is not ready after three minutes.
    """
    server = subprocess.Popen(  # noqa: S603
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL if log is None else log.open("ab"),
        env={**os.environ, **(environment or {})},
    )
    on_start(server.pid)
    try:
        _wait_ready(f"{url}{path}", server)
        yield url
    finally:
        server.terminate()
        server.wait()


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_ready(url: str, server: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + _READY_S
    while time.monotonic() < end:
        if server.poll() is not None:
            raise LoadTestError(f"the server for {url} ended with exit code {server.returncode}")
        try:
            urllib.request.urlopen(url, timeout=1).close()  # noqa: S310
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise LoadTestError(f"{url} was not ready after {_READY_S:g} s")
