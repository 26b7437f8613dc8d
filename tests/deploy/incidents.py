"""Three incidents under the eyes of a real Prometheus, and what fired, in some four minutes.

    PYTHONPATH=.:tests/support python tests/deploy/incidents.py [TABLE.md]

A real server with a Redis of its own gets steady traffic; Prometheus evaluates the rules of
`deploy/prometheus`. So that no week has to pass, time in the rules is compressed: a minute is a
second, and what is longer is shorter still (`_SECONDS`). Targets and factors are as they ship. It
ends with 1 if an alert that should fire did not, or one that must not did. No part of the tests: it
takes minutes and wants a machine without other load.
"""

import asyncio
import itertools
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from prometheus_server import DEPLOY, Prometheus
from redis_server import RedisServer
from server_process import Server

MODEL = "all-MiniLM-L6-v2"
RULES = [DEPLOY / "prometheus" / name for name in ("recording.yml", "slo.yml", "alerts.yml")]

_SECONDS = {"30m": 15, "1h": 15, "2h": 20, "6h": 30, "1d": 40, "3d": 40, "30d": 60, "1w": 25}
"""What windows become that are longer than 15 minutes; of the others a minute becomes a second."""

_BEFORE_S, _DURING_S, _AFTER_S = 50.0, 28.0, 32.0
_PER_S = 40
_KNOWN = 30

COMPRESSED = "a minute is a second; " + ", ".join(f"{a} is {b} s" for a, b in _SECONDS.items())


@dataclass(frozen=True)
class Incident:
    """What happens, and which alerts should fire, may fire, and (all others) must not."""

    name: str
    begin: Callable[["Scene"], Callable[[], object]]
    should: frozenset[str]
    may: frozenset[str] = frozenset()


@dataclass
class Fired:
    """An alert that fired: its name, and how many seconds after the incident began and ended."""

    name: str
    after_s: float
    until_s: float | None = None


def shortened(rules: str) -> str:
    """Return the rules with compressed time."""

    def window(found: re.Match[str]) -> str:
        given = found[1]
        seconds = _SECONDS.get(given) or int(given[:-1]) * {"m": 1, "h": 60}[given[-1]]
        return found[0].replace(given, f"{seconds}s")

    rules = re.sub(r"\[(\d+[mhdw])\]", window, rules)
    return re.sub(r"(?:for:|offset) (\d+[mhdw])", window, rules)


@dataclass
class Scene:
    """The server, its store, and the traffic, which may change its template."""

    server: Server
    redis: RedisServer
    template: str = "{}"
    answers: dict[int, int] = field(default_factory=dict)
    _over: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        self._thread = threading.Thread(target=lambda: asyncio.run(self._send()), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join(60)

    async def _send(self) -> None:
        """Send `_PER_S` requests a second, whatever is in flight: nine in ten known texts."""
        limits = httpx.Limits(max_connections=400)
        async with httpx.AsyncClient(base_url=self.server.url, timeout=60, limits=limits) as http:
            sent: set[asyncio.Task[None]] = set()
            due = time.monotonic()
            for number in itertools.count():
                if self._over.is_set():
                    break
                task = asyncio.create_task(self._ask(http, number))
                sent.add(task)
                task.add_done_callback(sent.discard)
                due += 1 / _PER_S
                await asyncio.sleep(max(0.0, due - time.monotonic()))
            await asyncio.gather(*sent, return_exceptions=True)

    async def _ask(self, http: httpx.AsyncClient, number: int) -> None:
        text = f"how do I change setting {number % _KNOWN} of my account, please?"
        # Every second caller uses the template: of one that changes every request is another text.
        if number % 2:
            text = self.template.format(text).replace("NUMBER", str(number))
        elif number % 10 == 0:
            text += f" It is about case {number}."
        try:
            answer = await http.post("/v1/embeddings", json={"model": MODEL, "input": text})
        except httpx.TransportError:
            self.answers[0] = self.answers.get(0, 0) + 1
            return
        self.answers[answer.status_code] = self.answers.get(answer.status_code, 0) + 1


def _change_template(scene: Scene) -> Callable[[], object]:
    scene.template = "Request NUMBER of today. {}"
    return lambda: setattr(scene, "template", "{}")


_HOG = """
import os, time
try:
    os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
except PermissionError:
    pass
while True:
    if time.time() % 1 >= 0.7:
        time.sleep(0.01)
"""


def _hog(_: Scene) -> Callable[[], object]:
    """Take all cores for seven tenths of each second, as a spent CPU quota does.

    In real time where that may be had: beside processes of a higher priority alone hits are as fast
    as before, and only misses slow. In the rest of the second a scrape is answered, which has one
    second in this compressed time, not ten.
    """
    command = [sys.executable, "-c", _HOG]
    hogs = [subprocess.Popen(command) for _ in range(2 * len(os.sched_getaffinity(0)))]

    def end() -> None:
        for hog in hogs:
            hog.kill()
            hog.wait()

    return end


def _stop_redis(scene: Scene) -> Callable[[], object]:
    scene.redis.stop()
    return scene.redis.start


INCIDENTS = (
    Incident(
        "a template change halves the hit rate",
        _change_template,
        should=frozenset({"CacheproxyHitRateDropped", "CacheproxyHitRateLow"}),
        # Half as many hits are several times as many misses, and these may be too many.
        may=frozenset({"CacheproxyQueueSlow", "CacheproxySlowBudget"}),
    ),
    Incident(
        "a CPU hog",
        _hog,
        # No page: a request that waits in its socket until the process gets a core has not begun
        # for the histogram of requests. Only those are slow that the hog meets midway; but the
        # event loop's own delay tells.
        should=frozenset({"CacheproxyLoopLate", "CacheproxySlowBudget"}),
        may=frozenset(
            {
                *("CacheproxySlow", "CacheproxyQueueSlow", "CacheproxyShedding"),
                # Its lookups find the store too slow, for want of a core.
                *("CacheproxyBreakerOpen", "CacheproxyHitRateLow", "CacheproxyHitRateDropped"),
            }
        ),
    ),
    Incident(
        "the store is gone",
        _stop_redis,
        should=frozenset({"CacheproxyBreakerOpen", "CacheproxyPurgesNotHeard"}),
        may=frozenset({"CacheproxyWritesDropped"}),
    ),
)


def live_through(incident: Incident, scene: Scene, prometheus: Prometheus) -> list[Fired]:
    """Have an incident happen; return what fired from its beginning until some time after it."""
    began = time.monotonic()
    end = incident.begin(scene)
    is_over = False
    fired: dict[str, Fired] = {}
    while (passed_s := time.monotonic() - began) < _DURING_S + _AFTER_S:
        if not is_over and passed_s > _DURING_S:
            end()
            is_over = True
        firing = prometheus.firing()
        for name in firing:
            found = fired.setdefault(name, Fired(name, passed_s))
            found.until_s = None
        for name in fired.keys() - firing:
            if fired[name].until_s is None:
                fired[name].until_s = passed_s - _DURING_S
        time.sleep(0.25)
    return list(fired.values())


def rows_of(incident: Incident, fired: list[Fired]) -> tuple[list[str], bool]:
    """Return the table's rows of an incident, and whether all was as it should be."""
    severities = dict(
        re.findall(r"alert: (\w+)\n.*?severity: (\w+)", RULES[-1].read_text(), re.DOTALL)
    )
    rows, is_right = [], True
    by_name = {one.name: one for one in fired}
    for name in sorted(incident.should | by_name.keys()):
        should = "should" if name in incident.should else "may"
        if name not in incident.should | incident.may:
            should, is_right = "**must not**", False
        found = by_name.get(name)
        if found is None:
            said, is_right = "**did not fire**", False
        else:
            said = f"after {found.after_s:.0f} s"
            if found.until_s is None:
                said += ", still at the end"
            else:
                said += f", until {found.until_s:+.0f} s"
        rows.append(f"| {incident.name} | {name} | {severities[name]} | {should} | {said} |")
    return rows, is_right


def main(table: Path | None) -> int:
    """Run all incidents, print the table; return the exit code."""
    text = "".join(path.read_text().replace("groups:", "", 1) for path in RULES)
    redis = RedisServer()
    redis.start()
    home = Path(os.environ["CACHEPROXY_TEST_HOME"])
    server = Server(home, redis.url, "--drain-s", "0")
    scene = Scene(server, redis)
    rows = [
        "| incident | alert | severity | | fired, from the beginning; until, from the end |",
        "|---|---|---|---|---|",
    ]
    is_right = True
    # Once a second: what is scraped more often has too little time to answer on a busy machine.
    target, rules = server.url.removeprefix("http://"), "groups:\n" + shortened(text)
    prometheus = Prometheus(target, rules, every_ms=1_000)
    try:
        scene.start()
        began = time.monotonic()
        before: set[str] = set()
        while time.monotonic() < began + _BEFORE_S:
            time.sleep(0.5)
            if time.monotonic() > began + _BEFORE_S / 2:
                before |= prometheus.firing()
        rows.append(f"| before | {', '.join(sorted(before)) or 'none'} | | | |")
        is_right = not before
        for incident in INCIDENTS:
            new, is_well = rows_of(incident, live_through(incident, scene, prometheus))
            rows += new
            is_right = is_right and is_well
    finally:
        scene.stop()
        prometheus.remove()
        server.stop()
        redis.remove()
    told = "\n".join(rows) + f"\n\nTime in the rules: {COMPRESSED}.\nAnswers: {scene.answers}\n"
    print(told)
    if table is not None:
        table.write_text(told)
    return 0 if is_right else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else None))
