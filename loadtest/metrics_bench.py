"""What metrics cost: hot hits with and without counting, `python -m loadtest.metrics_bench`.

Two servers side by side, one of which counts nothing, take turns; ratios within a round. Also how
long a scrape takes, of one of these servers and with namespaces in plenty.
"""

import statistics
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path

import click
from prometheus_client import generate_latest
from tqdm import tqdm

from cacheproxy.config import load_settings
from cacheproxy.metrics import Metrics
from cacheproxy.thresholds.certified import CertifiedThresholds
from cacheproxy.thresholds.promise import Promise
from loadtest.wrk import body_of, load, running_server

_CLIENTS = 32
_TEXT = "How do I reset my password on the website?"
_SCRAPES = 20


@click.command()
@click.option("--model", default="all-MiniLM-L6-v2", help="an installed model")
@click.option("--home", type=click.Path(path_type=Path), help="where models live")
@click.option("--rounds", default=15, show_default=True)
@click.option("--seconds", default=2, show_default=True, help="of each measurement")
def main(model: str, home: Path | None, rounds: int, seconds: int) -> None:
    """Measure hot hits with metrics and without."""
    home = load_settings({"home": str(home)} if home else {}, None).home
    body = body_of(_TEXT, model)
    ratios = []
    with ExitStack() as stack:
        counting = stack.enter_context(running_server(home, model))
        silent = stack.enter_context(running_server(home, model, program="loadtest.unmetered"))
        for number in tqdm(range(rounds), unit="round"):
            rates = {}
            for url in (counting, silent) if number % 2 else (silent, counting):
                found = load(f"{url}/v1/embeddings", [body], clients=_CLIENTS, seconds=seconds)
                rates[url] = found.requests_per_s
            ratios.append(rates[counting] / rates[silent])
        scrape_s = statistics.median(_scrape_s(counting) for _ in range(_SCRAPES))
    spread = f"{min(ratios):.1%} to {max(ratios):.1%}"
    click.echo(f"with metrics / without: {statistics.median(ratios):.1%} ({spread})")
    click.echo(f"a scrape takes {1000 * scrape_s:.1f} ms")
    for namespaces in (1_000, 10_000):
        render_s, series = _render(namespaces)
        click.echo(
            f"with {namespaces} namespaces {1000 * render_s:.1f} ms for {series} series of theirs"
        )


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


def _scrape_s(url: str) -> float:
    started = time.perf_counter()
    urllib.request.urlopen(f"{url}/metrics").read()  # noqa: S310
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
