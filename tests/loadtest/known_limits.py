"""`find-limit` on servers whose limit is known, beside a search by hand: one command, minutes.

    PYTHONPATH=. python tests/loadtest/known_limits.py [SERVICE_MS ...]

The server answers one request after the other and takes exactly so long for each, without using a
core (a queue M/D/1). The rate at which every second trial breaks a promise is therefore known: it
is computed by Lindley's recursion over the arrivals of 400 trials a rate. The search by hand is as
many real trials at 0.9 and at 1.1 times the limit that was found: at the first one most keep their
promises, at the second one most break them. No part of the tests: its figures are timings.
"""

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import uvicorn

from loadtest.results.result import Limit, read_result
from loadtest.servers.processes import free_port, running

TRIAL_S, P99_MS, ANSWERED = 5.0, 100.0, 0.95
BY_HAND = 5
SCENARIO = """\
about = "single texts at random moments"
[[phases]]
name = "all"
seconds = 5
[[phases.streams]]
name = "texts"
per_s = 10
"""
ANSWER = json.dumps({"object": "list", "data": [], "model": "m"}).encode()


class Paced:
    """An ASGI application that takes `service_s` for each request, one after the other."""

    def __init__(self, service_s: float) -> None:
        self._service_s = service_s
        self._free_at = 0.0

    async def __call__(self, scope, receive, send) -> None:
        while (await receive()).get("more_body"):
            pass
        if scope["method"] == "POST":
            now = time.monotonic()
            self._free_at = max(now, self._free_at) + self._service_s
            await asyncio.sleep(self._free_at - now)
        headers = [(b"content-length", b"%d" % len(ANSWER)), (b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": ANSWER})


def breaks(per_s: float, service_s: float, rng: np.random.Generator) -> bool:
    """Return whether a simulated trial breaks a promise."""
    arrivals = np.sort(rng.random(rng.poisson(per_s * TRIAL_S))) * TRIAL_S
    free_at, ends = 0.0, np.empty(len(arrivals))
    for i, at in enumerate(arrivals):
        free_at = max(free_at, at) + service_s
        ends[i] = free_at
    p99_ms = 1000 * np.quantile(ends - arrivals, 0.99, method="higher")
    answered = (len(arrivals) / max(TRIAL_S, ends[-1])) / (len(arrivals) / TRIAL_S)
    return bool(p99_ms > P99_MS or answered < ANSWERED)


def true_limit(service_s: float) -> float:
    """Return the rate at which every second trial breaks a promise, requests a second."""
    rng = np.random.default_rng(1)
    low, high = 0.05 / service_s, 1.2 / service_s
    for _ in range(9):
        middle = (low + high) / 2
        broken = sum(breaks(middle, service_s, rng) for _ in range(400))
        low, high = (low, middle) if broken > 200 else (middle, high)
    return (low + high) / 2


def command(url: str, folder: Path, *words: str) -> list[str]:
    where = ("--url", url, "--scenario", str(folder / "texts.toml"), "--json", str(folder / "a"))
    return [sys.executable, "-m", "loadtest", *words, *where]


def found_limit(url: str, folder: Path) -> tuple[Limit, float]:
    """Return what `find-limit` finds, and the seconds that it took."""
    began = time.monotonic()
    words = ("find-limit", "--seconds", str(TRIAL_S), "--start", "10")
    subprocess.run(command(url, folder, *words), check=True, capture_output=True)
    limit = read_result(folder / "a").limit
    assert limit is not None
    assert limit.per_s is not None
    return limit, time.monotonic() - began


def broken_by_hand(url: str, folder: Path, per_s: float) -> int:
    """Return how many of `BY_HAND` trials at a fixed rate break a promise."""
    broken = 0
    for seed in range(BY_HAND):
        words = ("run", "--scale", str(per_s / 10), "--seconds", str(TRIAL_S), "--seed", str(seed))
        subprocess.run(command(url, folder, *words), check=True, capture_output=True)
        figures = read_result(folder / "a").phases[0].streams[0].figures
        broken += figures["p99_ms"] > P99_MS or figures["answered_share"] < ANSWERED
    return broken


def main(services_ms: list[float]) -> None:
    """Print a row for each service time."""
    print("| a request takes | computed | found | off | broken at 0.9 and 1.1 of it | trials |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "texts.toml").write_text(SCENARIO)
        for service_ms in services_ms:
            port = free_port()
            serve = [sys.executable, __file__, "--serve", str(port), str(service_ms)]
            with running(serve, f"http://127.0.0.1:{port}", "/") as url:
                found, seconds = found_limit(url, folder)
                by_hand = [broken_by_hand(url, folder, share * found.per_s) for share in (0.9, 1.1)]
            truth = true_limit(service_ms / 1000)
            off = found.per_s / truth - 1
            print(
                f"| {service_ms:g} ms | {truth:.1f}/s | {found.per_s:.1f}/s "
                f"({found.low_per_s:.1f} to {found.high_per_s:.1f}) | {off:+.1%} "
                f"| {by_hand[0]} and {by_hand[1]} of {BY_HAND} "
                f"| {len(found.trials)} in {seconds:.0f} s |",
                flush=True,
            )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        port, service_ms = int(sys.argv[2]), float(sys.argv[3])
        uvicorn.run(
            Paced(service_ms / 1000),
            port=port,
            lifespan="off",
            access_log=False,
            log_level="warning",
        )
    else:
        main([float(given) for given in sys.argv[1:]] or [25, 10, 4])
