"""wrk in front of a server: a client in Python would take more CPU than the server's HTTP does."""

import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import LoadTestError, NotAnswered
from .caller import Caller

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

_FAILURES = (r"Non-2xx or 3xx responses: (\d+)", r"Socket errors: (connect .*)")


@dataclass(frozen=True)
class WrkResult:
    """What wrk saw: requests/s, latencies in seconds, and the number of requests."""

    requests_per_s: float
    p50_s: float
    p99_s: float
    requests: int


def has_wrk() -> bool:
    """Return whether wrk is installed."""
    return shutil.which("wrk") is not None


def body_of(text: str, model: str) -> str:
    """Return the JSON body that asks for the embedding of one text."""
    return json.dumps({"model": model, "input": text})


def load(url: str, bodies: Sequence[str], *, clients: int, seconds: int) -> WrkResult:
    """Post the bodies over and over on `clients` connections, and return what wrk saw.

    Raises:
        LoadTestError: wrk is not installed or does not work.
        NotAnswered: an answer was not 2xx.
    """
    shown = _run_wrk(url, bodies, clients, seconds)
    failed = [found.group(1) for pattern in _FAILURES if (found := re.search(pattern, shown))]
    # Asked once more, the server says what is wrong; and wrk takes a redirect for a success.
    Caller(url).post(bodies[0])
    if failed:
        raise NotAnswered(f"{url}: wrk counted failures: {', '.join(failed)}")
    return WrkResult(
        requests_per_s=float(_find(r"Requests/sec:\s+([\d.]+)", shown)),
        p50_s=_seconds(_find(r"50%\s+([\d.]+\w+)", shown)),
        p99_s=_seconds(_find(r"99%\s+([\d.]+\w+)", shown)),
        requests=int(_find(r"(\d+) requests in", shown)),
    )


def load_once(url: str, bodies: Sequence[str], *, clients: int, seconds: int) -> WrkResult:
    """Do as `load` does, but post every body at most once.

    Raises:
        LoadTestError: the server answered more requests than there are bodies.
    """
    result = load(url, bodies, clients=clients, seconds=seconds)
    if result.requests > len(bodies):
        raise LoadTestError(
            f"{url}: {result.requests} requests were answered, but there are only "
            f"{len(bodies)} texts: measure for fewer seconds"
        )
    return result


def _run_wrk(url: str, bodies: Sequence[str], clients: int, seconds: int) -> str:
    with tempfile.TemporaryDirectory() as folder:
        file, script = Path(folder) / "bodies", Path(folder) / "load.lua"
        file.write_text("\n".join(bodies) + "\n")
        script.write_text(_SCRIPT.replace("FILE", json.dumps(str(file))))
        command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds}", "--timeout", "30", "--latency"]
        try:
            done = subprocess.run(  # noqa: S603
                [*command, "-s", str(script), url], capture_output=True, text=True, check=False
            )
        except FileNotFoundError:
            raise LoadTestError("wrk is not installed (Debian: apt install wrk)") from None
    if done.returncode:
        raise LoadTestError(f"wrk failed: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def _find(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    if found is None:
        raise LoadTestError(f"wrk's output has no {pattern}:\n{text}")
    return found.group(1)


def _seconds(value: str) -> float:
    for unit, factor in (("us", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0)):
        if value.endswith(unit):
            return float(value.removesuffix(unit)) * factor
    raise LoadTestError(f"wrk gives an unknown unit: {value}")
