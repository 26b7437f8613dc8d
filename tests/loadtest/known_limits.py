"""`find-limit` on servers whose limit is known, beside a search by hand: one command, minutes.

    PYTHONPATH=. python tests/loadtest/known_limits.py [SERVICE_MS ...]

The server answers one request after the other and takes exactly so long for each, without using a
core (a queue M/D/1). The rate at which every second trial breaks a promise is therefore known: it
is computed by Lindley's recursion over the arrivals of 400 trials a rate. The search by hand knows
neither: it doubles the rate until most of `STEP` real trials break a promise, and then halves the
range, by most of `HALVING` trials each time, until its ends are less than 5 % apart. All servers
are searched at the same time, as they use no core. No part of the tests: its figures are timings.
"""

import asyncio
import itertools
import json
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import uvicorn

from loadtest.results.result import Result, read_result
from loadtest.servers.processes import free_port, running

TRIAL_S, P99_MS, ANSWERED = 5.0, 100.0, 0.95
STEP, HALVING = 3, 9
SCENARIO = 'about = "single texts at random moments"\n'
PHASE = """\
[[phases]]
name = "trial {number}"
seconds = {seconds}
[[phases.streams]]
name = "texts"
per_s = {per_s}
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


def run(url: str, folder: Path, *words: str, per_s: float, trials: int = 1) -> Result:
    """Return the result of a command over as many trials at one rate."""
    phases = [PHASE.format(number=number, seconds=TRIAL_S, per_s=per_s) for number in range(trials)]
    (folder / "texts.toml").write_text(SCENARIO + "".join(phases))
    where = ("--url", url, "--scenario", str(folder / "texts.toml"), "--json", str(folder / "a"))
    command = [sys.executable, "-m", "loadtest", *words, *where]
    subprocess.run(command, check=True, capture_output=True)
    return read_result(folder / "a")


def most_break(url: str, folder: Path, per_s: float, trials: int, seed: int) -> bool:
    """Return whether most of the trials at a rate break a promise."""
    result = run(url, folder, "run", "--seed", str(seed), per_s=per_s, trials=trials)
    figures = [phase.streams[0].figures for phase in result.phases]
    broken = sum(one["p99_ms"] > P99_MS or one["answered_share"] < ANSWERED for one in figures)
    return 2 * broken > trials


def limit_by_hand(url: str, folder: Path) -> tuple[float, float]:
    """Return the ends of the range in which the limit is found by hand."""
    seeds = itertools.count(1)
    high = 10.0
    while not most_break(url, folder, high, STEP, next(seeds)):
        high *= 2
    low = high / 2
    while high > 1.05 * low:
        middle = (low * high) ** 0.5
        if most_break(url, folder, middle, HALVING, next(seeds)):
            high = middle
        else:
            low = middle
    return low, high


def row_of(service_ms: float, truth: float) -> str:
    """Return the row of a service time, whose limit in truth is this one."""
    port = free_port()
    serve = [sys.executable, __file__, "--serve", str(port), str(service_ms)]
    with (
        tempfile.TemporaryDirectory() as name,
        running(serve, f"http://127.0.0.1:{port}", "/") as url,
    ):
        began = time.monotonic()
        words = ("find-limit", "--seconds", str(TRIAL_S), "--start", "10")
        found = run(url, Path(name), *words, per_s=10).limit
        seconds = time.monotonic() - began
        low, high = limit_by_hand(url, Path(name))
    assert found is not None
    assert found.per_s is not None
    by_hand = (low * high) ** 0.5
    interval = f"({found.low_per_s:.1f} to {found.high_per_s:.1f})"
    return (
        f"| {service_ms:g} ms "
        f"| {found.per_s:.1f}/s {interval}, {len(found.trials)} in {seconds:.0f} s "
        f"| {by_hand:.1f}/s ({low:.1f} to {high:.1f}) | {found.per_s / by_hand - 1:+.1%} "
        f"| {truth:.1f}/s | {found.per_s / truth - 1:+.1%} |"
    )


def main(services_ms: list[float]) -> None:
    """Print a row for each service time."""
    print("| a request takes | found, 95 % interval, trials | by hand | off | computed | off |")
    print("|---|---|---|---|---|---|")
    # Before the trials, as it takes a core for some seconds.
    truths = [true_limit(service_ms / 1000) for service_ms in services_ms]
    with ThreadPoolExecutor(len(services_ms)) as searches:
        for row in searches.map(row_of, services_ms, truths):
            print(row, flush=True)


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
