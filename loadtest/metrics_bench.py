"""What metrics cost a hot hit: `python -m loadtest.metrics_bench`.

How long the application takes for one, with counting and without, in turns in one process without
sockets, whose noise is larger than what is measured; beside it what a hot hit takes over HTTP, from
wrk's rate. Also how long a scrape takes with namespaces in plenty.
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
from cacheproxy.settings.sections import Settings
from cacheproxy.settings.sources import load_settings
from cacheproxy.telemetry.loop_counters import LoopCount, LoopObservations
from cacheproxy.telemetry.metrics import Metrics
from cacheproxy.thresholds.certified import CertifiedThresholds
from cacheproxy.thresholds.promise import Promise
from loadtest.wrk import body_of, load, running_server

_CLIENTS = 32
_TEXT = "How do I reset my password on the website?"
_REQUESTS = 500
_SCRAPES = 20


@click.command()
@click.option("--model", default="all-MiniLM-L6-v2", help="an installed model")
@click.option("--home", type=click.Path(path_type=Path), help="where models live")
@click.option("--rounds", default=60, show_default=True)
@click.option("--seconds", default=5, show_default=True, help="of the measurement over HTTP")
def main(model: str, home: Path | None, rounds: int, seconds: int) -> None:
    """Measure hot hits with metrics and without."""
    flags = {"store": "memory://", **({"home": str(home)} if home else {})}
    settings = load_settings(flags, None)
    body = body_of(_TEXT, model)
    counting_s, silent_s = asyncio.run(
        _compare(settings, load_installed(model, settings.home), body.encode(), rounds)
    )
    with running_server(settings.home, model) as url:
        load(f"{url}/v1/embeddings", [body], clients=_CLIENTS, seconds=1)
        found = load(f"{url}/v1/embeddings", [body], clients=_CLIENTS, seconds=seconds)
    whole_s = 1 / found.requests_per_s
    cost_s = counting_s - silent_s
    click.echo(f"a hot hit in the application {1e6 * counting_s:.2f} us")
    click.echo(f"without counting             {1e6 * silent_s:.2f} us")
    click.echo(f"over HTTP                    {1e6 * whole_s:.2f} us")
    click.echo(f"counting takes {1e6 * cost_s:.2f} us, {cost_s / whole_s:.1%} of a hot hit")
    for namespaces in (1_000, 10_000):
        render_s, series = _render(namespaces)
        click.echo(
            f"a scrape with {namespaces} namespaces: {1000 * render_s:.1f} ms, "
            f"{series} series of theirs"
        )


async def _compare(
    settings: Settings, installed: InstalledModel, body: bytes, rounds: int
) -> tuple[float, float]:
    """Return the least seconds of a hot hit in the application, with counting and without."""
    app = App(settings, installed)
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
    """Return the seconds of one of so many requests."""
    headers = [(b"host", b"localhost"), (b"content-length", b"%d" % len(body))]

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        if message.get("status", 200) != 200:
            raise RuntimeError(f"answered {message['status']}")

    started = time.perf_counter()
    for _ in range(times):
        scope = {"type": "http", "method": "POST", "path": "/v1/embeddings", "headers": headers}
        await app.asgi(scope, receive, send)
    return (time.perf_counter() - started) / times


@contextmanager
def _uncounted() -> Iterator[None]:
    """Have nothing counted during the block."""

    def nothing(*_: Any) -> None:
        return None

    with ExitStack() as stack:
        for counted in (LoopCount, Counter):
            stack.enter_context(patch.object(counted, "inc", nothing))
        for observed in (LoopObservations, Histogram):
            stack.enter_context(patch.object(observed, "observe", nothing))
        yield


def _render(namespaces: int) -> tuple[float, int]:
    """Return how long it takes to render the metrics, and how many series namespaces have."""
    metrics = Metrics()
    controller = CertifiedThresholds(
        Promise(), min_similarity=0.95, saves_only=False, model="m", metrics=metrics
    )
    for number in range(namespaces):
        controller.judge(f"{number:032x}", 0.97, None)
    times_s = []
    for _ in range(_SCRAPES):
        started = time.perf_counter()
        text = generate_latest(metrics.registry)
        times_s.append(time.perf_counter() - started)
    return statistics.median(times_s), text.count(b"namespace=")


if __name__ == "__main__":
    main()
