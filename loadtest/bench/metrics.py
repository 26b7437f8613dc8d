"""What counting costs a hot hit, and how long a scrape takes with many namespaces.

The time of a hot hit in the application is measured with and without counting, in turns, in one
process, and without sockets, because their noise exceeds the difference. The time of a hot hit over
HTTP comes from wrk's rate.
"""

import asyncio
import statistics
import time
from collections.abc import Iterator, MutableMapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import click
from prometheus_client import Counter, Histogram, generate_latest
from tqdm import tqdm

from cacheproxy.modelkit.install import InstalledModel, load_installed
from cacheproxy.server.app import App
from cacheproxy.settings.settings import Settings
from cacheproxy.telemetry.loop_counters import LoopCount, LoopObservations
from cacheproxy.telemetry.metrics import Metrics
from cacheproxy.thresholds.certified import CertifiedThresholds
from cacheproxy.thresholds.promise import Promise

from ..errors import NotAnswered
from ..servers.processes import running_server
from ..traffic.target import PATHS, endpoint
from .options import model_flags, settings_of, smoke_flag
from .wrk import body_of, load

_CLIENTS = 32
_TEXT = "How do I reset my password on the website?"
_REQUESTS = 500


@click.command()
@smoke_flag(rounds=1, seconds=1, scrapes=1)
@model_flags
@click.option("--rounds", default=60, show_default=True)
@click.option("--seconds", default=5, show_default=True, help="of the measurement over HTTP")
@click.option("--scrapes", default=20, show_default=True, help="timed with each size")
def main(model: str, home: Path | None, rounds: int, seconds: int, scrapes: int) -> None:
    """What metrics cost.

    Compares hot hits with and without counting, and times scrapes with many namespaces.
    """
    settings = settings_of(home, store="memory://")
    body = body_of(_TEXT, model)
    counting_s, silent_s = asyncio.run(
        _compare(settings, load_installed(model, settings.home), body.encode(), rounds)
    )
    with running_server(settings.home, model) as url:
        route = endpoint(url, "embeddings")
        load(route, [body], clients=_CLIENTS, seconds=1)
        found = load(route, [body], clients=_CLIENTS, seconds=seconds)
    whole_s = 1 / found.requests_per_s
    cost_s = counting_s - silent_s
    click.echo(f"a hot hit in the application {1e6 * counting_s:.2f} us")
    click.echo(f"without counting             {1e6 * silent_s:.2f} us")
    click.echo(f"over HTTP                    {1e6 * whole_s:.2f} us")
    click.echo(f"counting takes {1e6 * cost_s:.2f} us, {cost_s / whole_s:.1%} of a hot hit")
    for namespaces in (1_000, 10_000):
        render_s, series = _render(namespaces, scrapes)
        click.echo(
            f"a scrape with {namespaces} namespaces: {1000 * render_s:.1f} ms, "
            f"{series} series with a namespace"
        )


async def _compare(
    settings: Settings, installed: InstalledModel, body: bytes, rounds: int
) -> tuple[float, float]:
    """Return the least seconds of a hot hit in the application, with and without counting."""
    app = App(settings, [installed])
    await app.start()
    await _ask(app, body, _REQUESTS)
    counting, silent = [], []
    for _ in tqdm(range(rounds), unit="round"):
        counting.append(await _ask(app, body, _REQUESTS))
        with _uncounted():
            silent.append(await _ask(app, body, _REQUESTS))
    await app.stop()
    return min(counting), min(silent)


async def _ask(app: App, body: bytes, times: int) -> float:
    """Return the mean seconds of a request, over a number of requests."""
    path = PATHS["embeddings"]
    headers = [(b"host", b"localhost"), (b"content-length", b"%d" % len(body))]

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        if message.get("status", 200) // 100 != 2:
            raise NotAnswered(f"{path} answered {message['status']}")

    started = time.perf_counter()
    for _ in range(times):
        scope = {"type": "http", "method": "POST", "path": path, "headers": headers}
        await app.edge(scope, receive, send)
    return (time.perf_counter() - started) / times


@contextmanager
def _uncounted() -> Iterator[None]:
    """Turn counting off during the block."""

    def nothing(*_: Any) -> None:
        return None

    with ExitStack() as stack:
        for counted in (LoopCount, Counter):
            stack.enter_context(patch.object(counted, "inc", nothing))
        for observed in (LoopObservations, Histogram):
            stack.enter_context(patch.object(observed, "observe", nothing))
        yield


def _render(namespaces: int, scrapes: int) -> tuple[float, int]:
    """Return the seconds of a scrape, and the number of series with a namespace."""
    metrics = Metrics()
    controller = CertifiedThresholds(
        Promise(), min_similarity=0.95, saves_only=False, model="m", metrics=metrics
    )
    for number in range(namespaces):
        controller.judge(f"{number:032x}", 0.97, None)
    times_s = []
    for _ in range(scrapes):
        started = time.perf_counter()
        text = generate_latest(metrics.registry)
        times_s.append(time.perf_counter() - started)
    return statistics.median(times_s), text.count(b"namespace=")
