"""What metrics cost: hot hits with and without counting, `python -m loadtest.metrics_bench`.

Two servers side by side, one of which counts nothing, take turns; ratios within a round. Also how
long a scrape takes.
"""

import statistics
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path

import click
from tqdm import tqdm

from cacheproxy.config import load_settings
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


def _scrape_s(url: str) -> float:
    started = time.perf_counter()
    urllib.request.urlopen(f"{url}/metrics").read()  # noqa: S310
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
