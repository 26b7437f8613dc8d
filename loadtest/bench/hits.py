"""Cache hits beside the fastest Python server that does the same input and output.

Hot hits are compared with a bare ASGI application under uvicorn that returns the same bytes; exact
hits in Redis (hot tier off) with one that makes a GET through redis-py for every request. One
worker each, wrk with 32 connections, several rounds, ratios within a round.
"""

import json
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import click
from tqdm import tqdm

from ..servers.bare import running_bare
from ..servers.processes import running_server
from ..traffic.target import endpoint
from .caller import Caller
from .options import PATH, model_flags, settings_of, smoke_flag
from .wrk import WrkResult, body_of, load

_CLIENTS = 32
_TEXT = "How do I reset my password on the website?"

HOT, BARE = "hot hits", "bare uvicorn"
EXACT, BARE_GET = "exact hits in Redis", "bare uvicorn + one GET"


@click.command()
@smoke_flag(rounds=1, seconds=1)
@model_flags
@click.option("--redis", "redis_url", help="also measure exact hits in this Redis")
@click.option("--rounds", default=5, show_default=True)
@click.option("--seconds", default=3, show_default=True, help="of each measurement")
@click.option("--json", "json_path", type=PATH, help="write all figures to this file")
def main(
    model: str,
    home: Path | None,
    redis_url: str | None,
    rounds: int,
    seconds: int,
    json_path: Path | None,
) -> None:
    """Cache hits beside a bare Python server.

    Hot hits are compared with a server that returns the same bytes; with --redis, exact hits are
    compared with one that makes a GET for each request.
    """
    pairs = [(HOT, BARE), *([(EXACT, BARE_GET)] if redis_url else [])]
    with running_pairs(settings_of(home).home, model, redis_url) as measure:
        results = [measure(seconds) for _ in tqdm(range(rounds), unit="round")]
    _show(results, pairs)
    if json_path:
        rates = {name: [one[name].requests_per_s for one in results] for name in results[0]}
        json_path.write_text(json.dumps(rates, indent=1) + "\n")


@contextmanager
def running_pairs(
    home: Path, model: str, redis_url: str | None
) -> Iterator[Callable[[int], dict[str, WrkResult]]]:
    """Yield a function that loads each server for so many seconds, and returns what wrk saw.

    Raises:
        LoadTestError: a server does not become ready.
    """
    body = body_of(_TEXT, model)
    with ExitStack() as stack:
        urls = {HOT: stack.enter_context(running_server(home, model))}
        answer = Caller(endpoint(urls[HOT], "embeddings")).post(body).body
        urls[BARE] = stack.enter_context(running_bare(answer))
        if redis_url:
            flags = ("--store", redis_url, "--cache-hot-bytes", "0")
            urls[EXACT] = stack.enter_context(running_server(home, model, *flags))
            urls[BARE_GET] = stack.enter_context(running_bare(answer, redis_url))
        routes = {name: endpoint(url, "embeddings") for name, url in urls.items()}
        for route in routes.values():
            Caller(route).post(body)
        yield lambda seconds: {
            name: load(route, [body], clients=_CLIENTS, seconds=seconds)
            for name, route in routes.items()
        }


def _show(results: Sequence[dict[str, WrkResult]], pairs: list[tuple[str, str]]) -> None:
    for name in results[0]:
        rate = statistics.median(one[name].requests_per_s for one in results)
        p99 = statistics.median(one[name].p99_s for one in results)
        click.echo(f"{name:26s}{rate:10.0f} requests/s, p99 {1000 * p99:6.2f} ms")
    for name, bare in pairs:
        ratios = [one[name].requests_per_s / one[bare].requests_per_s for one in results]
        spread = f"{min(ratios):.0%} to {max(ratios):.0%}"
        click.echo(f"{name} / {bare}: {statistics.median(ratios):.0%} ({spread})")
