"""Servers in processes of their own, and wrk in front of them.

wrk, because a client in Python would take more of the cores than the server's own HTTP does.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_READY_S = 180.0

_SCRIPT = """
local bodies = {}
for body in io.lines(FILE) do bodies[#bodies + 1] = body end
local n = 0
function request()
  n = n + 1
  local headers = {["Content-Type"] = "application/json"}
  return wrk.format("POST", nil, headers, bodies[(n - 1) % #bodies + 1])
end
"""


@dataclass(frozen=True)
class WrkResult:
    """What wrk saw: requests/s, latencies in seconds, requests that failed, and all requests."""

    requests_per_s: float
    p50_s: float
    p99_s: float
    failed: int
    requests: int


def has_wrk() -> bool:
    """Return whether wrk is installed."""
    return shutil.which("wrk") is not None


@contextmanager
def running_server(home: Path, model: str, *flags: str) -> Iterator[str]:
    """Yield the URL of a new cacheproxy; its cache is in memory unless the flags say otherwise."""
    store = () if "--store" in flags else ("--store", "memory://")
    options = ["--home", str(home), "--model", model, "--drain-s", "0", *store, *flags]
    port = free_port()
    command = [sys.executable, "-m", "cacheproxy", "serve", "--port", str(port), *options]
    with running(command, f"http://127.0.0.1:{port}", "/readyz") as url:
        yield url


@contextmanager
def running(
    command: Sequence[str], url: str, path: str, environment: Mapping[str, str] | None = None
) -> Iterator[str]:
    """Run a server's command and yield its URL as soon as `path` is answered."""
    server = subprocess.Popen(  # noqa: S603
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **(environment or {})},
    )
    try:
        _wait_ready(f"{url}{path}", server)
        yield url
    finally:
        server.terminate()
        server.wait()


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_ready(url: str, server: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + _READY_S
    while time.monotonic() < end and server.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=1).close()  # noqa: S310
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"nothing became ready at {url}")


def body_of(text: str, model: str) -> str:
    """Return the JSON body that asks for one text."""
    return json.dumps({"model": model, "input": text})


def load(url: str, bodies: Sequence[str], *, clients: int, seconds: int) -> WrkResult:
    """Return what `clients` connections saw that post one body after the other, over and over."""
    with tempfile.TemporaryDirectory() as folder:
        file, script = Path(folder) / "bodies", Path(folder) / "load.lua"
        file.write_text("\n".join(bodies) + "\n")
        script.write_text(_SCRIPT.replace("FILE", json.dumps(str(file))))
        command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds}", "--latency", "-s", str(script)]
        shown = subprocess.run([*command, url], check=True, capture_output=True, text=True).stdout  # noqa: S603
    return WrkResult(
        requests_per_s=float(_find(r"Requests/sec:\s+([\d.]+)", shown)),
        p50_s=_seconds(_find(r"50%\s+([\d.]+\w+)", shown)),
        p99_s=_seconds(_find(r"99%\s+([\d.]+\w+)", shown)),
        failed=int(_find(r"Non-2xx or 3xx responses: (\d+)", shown, "0")),
        requests=int(_find(r"(\d+) requests in", shown)),
    )


def load_once(url: str, bodies: Sequence[str], *, clients: int, seconds: int) -> WrkResult:
    """Do as `load` does, with every body asked for once.

    Raises:
        RuntimeError: the bodies did not last, so that some were asked for again.
    """
    result = load(url, bodies, clients=clients, seconds=seconds)
    if result.requests > len(bodies):
        raise RuntimeError(f"{len(bodies)} texts are too few: {result.requests} were asked for")
    return result


def _find(pattern: str, text: str, default: str | None = None) -> str:
    found = re.search(pattern, text)
    if found is None and default is None:
        raise RuntimeError(f"wrk's output is not understood:\n{text}")
    return found.group(1) if found else str(default)


def _seconds(value: str) -> float:
    for unit, factor in (("us", 1e-6), ("ms", 1e-3), ("s", 1.0)):
        if value.endswith(unit):
            return float(value.removesuffix(unit)) * factor
    raise RuntimeError(f"wrk gives an unknown unit: {value}")
