"""What a hostile tenant does to another on the same server: latency, hits, evidence, memory.

One tenant asks at a steady rate: questions that are cached, and new ones. It does so alone, and
then under each attack of a second tenant (`traffic.attacks`), which begins on a quiet server each
time. The store and the hot tier are small, so that what the attacks write has to be evicted.
Percentiles are of all rounds together. The hostile client takes only CPU time that neither the
server nor the steady client wants (`traffic.attacks` says how), so that what is measured is what
the server lets it have; how many requests it got through is told.
"""

import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import NamedTuple

import click
import httpx
import numpy as np
from tqdm import tqdm

from cacheproxy.api.access.key_ring import hash_key

from ..errors import NotAnswered
from ..results.scrape import Metrics, scrape
from ..servers.processes import free_port, running, serve_command
from ..traffic.attacks import ATTACKS, sentence, under
from ..traffic.target import endpoint
from .options import PATH, model_flags, settings_of, smoke_flag

_STEADY = "steady"
_KEYS = {_STEADY: "cp-steady-tenant", "hostile": "cp-hostile-tenant"}

_QUIET = "alone"
_KNOWN = 200
"""Questions that the steady tenant asks again and again."""

_NEW_SHARE = 0.25
_WARM_UP_S = 0.5
_SETTLE_S = 15.0
"""The longest that is waited after an attack until what it has queued is done."""

_HOT_BYTES, _STORE_BYTES = 4 * 2**20, 24 * 2**20

_KNOWN_FORM = "Where can I find the {} number of my order in the app?"


class _Seen(NamedTuple):
    """The seconds that the steady tenant's questions took, and how many hits became misses."""

    known_s: list[float]
    new_s: list[float]
    lost: int


@dataclass
class _Figures:
    """What was seen of one attack in all rounds."""

    seen: list[_Seen] = field(default_factory=list)
    memory_bytes: list[float] = field(default_factory=list)
    evidence: list[tuple[float, float]] = field(default_factory=list)
    """The steady tenant's labels before and after."""
    asked: float = 0.0
    refused: float = 0.0
    """Requests of the hostile tenant, and those of them that were answered 429 or 503."""


@click.command()
@smoke_flag(rounds=1, seconds=1)
@model_flags
@click.option("--rounds", default=3, show_default=True)
@click.option("--seconds", default=5, show_default=True, help="of each measurement")
@click.option("--rate", default=60, show_default=True, help="requests/s of the steady tenant")
@click.option("--attack", "attacks", multiple=True, default=tuple(ATTACKS), help="one of them only")
@click.option("--json", "json_path", type=PATH, help="write all figures to this file")
def main(
    model: str,
    home: Path | None,
    rounds: int,
    seconds: int,
    rate: int,
    attacks: tuple[str, ...],
    json_path: Path | None,
) -> None:
    """What one tenant's attacks cost another."""
    settings = settings_of(home)
    figures: dict[str, _Figures] = defaultdict(_Figures)
    with _serving(settings.home, model) as (url, admin_url):
        steady = _Steady(url, model, rate)
        for number in tqdm(range(rounds), unit="round"):
            steady.warm_up()
            figures[_QUIET].seen.append(steady.ask(seconds))
            figures[_QUIET].memory_bytes.append(_memory_bytes(url))
            for attack in attacks:
                one = figures[attack]
                evidence = _evidence(admin_url)
                with under(attack, url, _KEYS["hostile"], number):
                    time.sleep(_WARM_UP_S)
                    before = scrape(url)
                    seen = steady.ask(seconds)
                    _count_hostile(one, before, scrape(url), seen)
                    one.seen.append(seen)
                    one.memory_bytes.append(_memory_bytes(url))
                _settle(url)
                one.evidence.append((evidence, _evidence(admin_url)))
    _show(figures)
    if json_path:
        json_path.write_text(json.dumps(_as_json(figures), indent=1) + "\n")


@contextmanager
def _serving(home: Path, model: str) -> Iterator[tuple[str, str]]:
    """Yield a server's URL, and that of its admin listener."""
    with tempfile.TemporaryDirectory(prefix="cacheproxy-tenants-") as folder:
        config = Path(folder) / "cacheproxy.toml"
        keys = [f'{tenant} = ["{hash_key(key)}"]' for tenant, key in _KEYS.items()]
        config.write_text("\n".join(["[api_keys]", *keys, ""]))
        port, admin_port = free_port(), free_port()
        url = f"http://127.0.0.1:{port}"
        command = serve_command(
            *(home, model, port, "--config", str(config), "--admin-port", str(admin_port)),
            *("--store", f"sqlite:///{folder}/cache.sqlite"),
            *("--cache-hot-bytes", str(_HOT_BYTES), "--cache-store-bytes", str(_STORE_BYTES)),
        )
        with running(command, url, "/readyz"):
            yield url, f"http://127.0.0.1:{admin_port}"


class _Steady:
    """The tenant that is to notice nothing."""

    def __init__(self, url: str, model: str, rate: int) -> None:
        headers = {"Authorization": f"Bearer {_KEYS[_STEADY]}"}
        self._client = httpx.Client(headers=headers, timeout=60)
        self._url = endpoint(url, "embeddings")
        self._model = model
        self._interval_s = 1 / rate
        self._draw = Random(0)  # noqa: S311

    def warm_up(self) -> None:
        """Ask all known questions, so that they are cached."""
        for number in range(_KNOWN):
            self._ask(_KNOWN_FORM.format(number))

    def ask(self, seconds: float) -> _Seen:
        """Ask at the rate; a question that comes late counts from when it was due."""
        seen = _Seen([], [], 0)
        lost = 0
        started = time.perf_counter()
        for number in range(int(seconds / self._interval_s)):
            due = started + number * self._interval_s
            time.sleep(max(0.0, due - time.perf_counter()))
            is_new = self._draw.random() < _NEW_SHARE
            text = (
                sentence(self._draw) if is_new else _KNOWN_FORM.format(self._draw.randrange(_KNOWN))
            )
            began = time.perf_counter()
            is_hit = self._ask(text)
            (seen.new_s if is_new else seen.known_s).append(time.perf_counter() - began)
            lost += not is_new and not is_hit
        return seen._replace(lost=lost)

    def _ask(self, text: str) -> bool:
        """Return whether the answer was a hit."""
        try:
            answer = self._client.post(self._url, json={"model": self._model, "input": text})
        except httpx.HTTPError as error:
            raise NotAnswered(f"{self._url}: {type(error).__name__}") from None
        if answer.status_code != 200:
            path = httpx.URL(self._url).path
            raise NotAnswered(f"{path} answered {answer.status_code}: {answer.text[:200]}")
        return "; hit" in answer.headers["cache-status"]


def _settle(url: str) -> None:
    """Wait until nothing that an attack has queued is left."""
    end = time.monotonic() + _SETTLE_S
    while time.monotonic() < end:
        found = scrape(url)
        queues = ("queue_depth", "writeback_queue_entries", "semantic_checks_waiting")
        if not sum(found.value(f"cacheproxy_{name}") for name in queues):
            return
        time.sleep(0.1)


def _memory_bytes(url: str) -> float:
    return scrape(url).value("process_resident_memory_bytes")


def _evidence(admin_url: str) -> float:
    """Return how many labels the steady tenant's namespace has."""
    namespaces = httpx.get(f"{admin_url}/admin/thresholds").json()["namespaces"]
    own = [one["thresholds"] for one in namespaces if one.get("tenant") == _STEADY]
    return max((of["labels"] for thresholds in own for of in thresholds), default=0.0)


def _count_hostile(figures: _Figures, before: Metrics, after: Metrics, seen: _Seen) -> None:
    counted = "cacheproxy_requests_total"
    was = before.sum_by(counted, "status")
    grown = {
        status: count - was.get((status,), 0.0)
        for (status,), count in after.sum_by(counted, "status").items()
    }
    figures.asked += sum(grown.values()) - len(seen.known_s) - len(seen.new_s)
    figures.refused += grown.get("429", 0.0) + grown.get("503", 0.0)


def _p(quantile: float, found: list[_Seen], which: str) -> float:
    return float(np.quantile([one for seen in found for one in getattr(seen, which)], quantile))


def _show(figures: dict[str, _Figures]) -> None:
    click.echo(
        f"{'the other tenant':20s}{'hits p50':>10s}{'p99':>9s}{'x':>6s}"
        f"{'misses p50':>12s}{'p99':>9s}{'x':>6s}{'hits lost':>11s}{'evidence kept':>15s}"
        f"{'memory':>10s}{'asked':>9s}{'refused':>9s}"
    )
    quiet = figures[_QUIET].seen
    for name, one in figures.items():
        line = f"{name:20s}"
        for width, which in ((10, "known_s"), (12, "new_s")):
            p50, p99 = (1000 * _p(q, one.seen, which) for q in (0.5, 0.99))
            times = p99 / (1000 * _p(0.99, quiet, which))
            line += f"{p50:{width}.1f}{p99:9.1f}{times:6.1f}"
        lost = sum(seen.lost for seen in one.seen)
        memory = f"{max(one.memory_bytes) / 2**20:,.0f} MiB" if one.memory_bytes else ""
        kept = min((after / before for before, after in one.evidence if before), default=None)
        told = "" if kept is None else f"{kept:.0%}"
        line += f"{lost:11d}{told:>15s}{memory:>10s}"
        if name != _QUIET:
            line += f"{one.asked:9,.0f}{one.refused:9,.0f}"
        click.echo(line)
    click.echo(
        "times in ms; x: p99 to that when alone; evidence: the least share of labels left after an"
        " attack;\nmemory: the server's most; asked, refused: the other tenant's requests"
    )


def _as_json(figures: dict[str, _Figures]) -> dict[str, object]:
    return {
        name: {
            "rounds": [seen._asdict() for seen in one.seen],
            "memory_bytes": one.memory_bytes,
            "evidence": one.evidence,
            "asked": one.asked,
            "refused": one.refused,
        }
        for name, one in figures.items()
    }
