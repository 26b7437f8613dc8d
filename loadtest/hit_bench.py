"""Hits against what a Python server can do at all: `python -m loadtest.hit_bench`.

Hot hits against a bare ASGI application under uvicorn that returns the same bytes; exact hits in
Redis (hot tier off) against one that makes a GET through redis-py for every request. One worker
each, wrk with 32 connections, several rounds, ratios within a round.
"""

import json
import statistics
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import click
from tqdm import tqdm

from cacheproxy.settings.sources import load_settings
from loadtest.wrk import WrkResult, body_of, free_port, load, running, running_server

_CLIENTS = 32
_TEXT = "How do I reset my password on the website?"

HOT, BARE = "hot hits", "bare uvicorn"
EXACT, BARE_GET = "exact hits in Redis", "bare uvicorn + one GET"


@contextmanager
def _bare(answer: bytes, *redis_url: str) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        file, port = Path(folder) / "answer", free_port()
        file.write_bytes(answer)
        command = [sys.executable, "-m", "loadtest.bare", str(port), str(file), *redis_url]
        with running(command, f"http://127.0.0.1:{port}", "/") as url:
            yield url


def _answer(url: str, body: str) -> bytes:
    request = urllib.request.Request(  # noqa: S310
        f"{url}/v1/embeddings", body.encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as response:  # noqa: S310
        answer: bytes = response.read()
        return answer


@click.command()
@click.option("--model", default="all-MiniLM-L6-v2", help="an installed model")
@click.option("--home", type=click.Path(path_type=Path), help="where models live")
@click.option("--redis", "redis_url", help="measure exact hits in this Redis, too")
@click.option("--rounds", default=5, show_default=True)
@click.option("--seconds", default=3, show_default=True, help="of each measurement")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="write every figure")
def main(
    model: str,
    home: Path | None,
    redis_url: str | None,
    rounds: int,
    seconds: int,
    json_path: Path | None,
) -> None:
    """Measure hits beside bare applications that do the same input and output."""
    settings = load_settings({"home": str(home)} if home else {}, None)
    body = body_of(_TEXT, model)
    with ExitStack() as stack:
        urls = {HOT: stack.enter_context(running_server(settings.home, model))}
        answer = _answer(urls[HOT], body)
        urls[BARE] = stack.enter_context(_bare(answer))
        pairs = [(HOT, BARE)]
        if redis_url:
            flags = ("--store", redis_url, "--cache-hot-bytes", "0")
            urls[EXACT] = stack.enter_context(running_server(settings.home, model, *flags))
            urls[BARE_GET] = stack.enter_context(_bare(answer, redis_url))
            pairs.append((EXACT, BARE_GET))
        for url in urls.values():
            _answer(url, body)
        results: dict[str, list[WrkResult]] = {name: [] for name in urls}
        for _ in tqdm(range(rounds), unit="round"):
            for name, url in urls.items():
                found = load(f"{url}/v1/embeddings", [body], clients=_CLIENTS, seconds=seconds)
                results[name].append(found)
    _show(results, pairs)
    if json_path:
        rates = {name: [one.requests_per_s for one in found] for name, found in results.items()}
        json_path.write_text(json.dumps(rates, indent=1) + "\n")


def _show(results: dict[str, list[WrkResult]], pairs: list[tuple[str, str]]) -> None:
    for name, found in results.items():
        rate = statistics.median(one.requests_per_s for one in found)
        p99 = statistics.median(one.p99_s for one in found)
        failed = sum(one.failed for one in found)
        click.echo(f"{name:26s}{rate:10.0f} requests/s, p99 {1000 * p99:6.2f} ms, {failed} failed")
    for name, bare in pairs:
        ratios = [
            one.requests_per_s / other.requests_per_s
            for one, other in zip(results[name], results[bare], strict=True)
        ]
        spread = f"{min(ratios):.0%} to {max(ratios):.0%}"
        click.echo(f"{name} / {bare}: {statistics.median(ratios):.0%} ({spread})")


if __name__ == "__main__":
    main()
