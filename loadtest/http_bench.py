"""A real server under wrk: one unseen text a request.

wrk, because a client in Python would take more of the cores than the server's own HTTP does.
"""

import json
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_READY_S = 60.0

_SCRIPT = """
local bodies = {}
for body in io.lines(FILE) do bodies[#bodies + 1] = body end
local n = 0
function request()
  n = n + 1
  local headers = {["Content-Type"] = "application/json"}
  return wrk.format("POST", "/v1/embeddings", headers, bodies[(n - 1) % #bodies + 1])
end
"""


@dataclass(frozen=True)
class HttpResult:
    """What wrk saw: requests/s, the median latency in seconds, and requests that failed."""

    requests_per_s: float
    p50_s: float
    failed: int
    requests: int


def has_wrk() -> bool:
    """Return whether wrk is installed."""
    return shutil.which("wrk") is not None


@contextmanager
def running_server(home: Path, model: str) -> Iterator[str]:
    """Yield the URL of a new server with an empty cache in memory."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "cacheproxy", "serve", "--port", str(port)]
    command += ["--home", str(home), "--model", model, "--store", "memory://", "--drain-s", "0"]
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL)  # noqa: S603
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_ready(url, server)
        yield url
    finally:
        server.terminate()
        server.wait()


def _wait_ready(url: str, server: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + _READY_S
    while time.monotonic() < end and server.poll() is None:
        try:
            urllib.request.urlopen(f"{url}/readyz", timeout=1).close()  # noqa: S310
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError("the server did not become ready")


def load(url: str, texts: Sequence[str], model: str, *, clients: int, seconds: int) -> HttpResult:
    """Return what `clients` connections saw that ask for one text after another, each once.

    Raises:
        RuntimeError: the texts did not last, so that some were asked for again.
    """
    with tempfile.TemporaryDirectory() as folder:
        bodies, script = Path(folder) / "bodies", Path(folder) / "load.lua"
        lines = (json.dumps({"model": model, "input": text}) for text in texts)
        bodies.write_text("\n".join(lines) + "\n")
        script.write_text(_SCRIPT.replace("FILE", json.dumps(str(bodies))))
        command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds}", "--latency", "-s", str(script)]
        shown = subprocess.run([*command, url], check=True, capture_output=True, text=True).stdout  # noqa: S603
    requests = int(_find(r"(\d+) requests in", shown))
    if requests > len(texts):
        raise RuntimeError(f"{len(texts)} texts are too few for {seconds} s: {requests} were asked")
    return HttpResult(
        requests_per_s=float(_find(r"Requests/sec:\s+([\d.]+)", shown)),
        p50_s=_seconds(_find(r"50%\s+([\d.]+\w+)", shown)),
        failed=int(_find(r"Non-2xx or 3xx responses: (\d+)", shown, "0")),
        requests=requests,
    )


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
