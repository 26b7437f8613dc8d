"""What chat requests cost: `python -m loadtest.chat_bench`.

Misses: one client, one request after the other, in turn to an upstream that answers at once and
through the proxy to it; every question is a new one. The difference of the medians is what the
proxy adds, to the whole answer and to a stream's first byte. Hits: wrk with 32 connections, the
chat route beside the embeddings route, answers of equal size, in turn, over several rounds.
"""

import http.client
import json
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import click
from tqdm import tqdm

from cacheproxy.settings.sources import load_settings
from loadtest.bare_llm import completion
from loadtest.wrk import body_of, free_port, load, running, running_server

_CLIENTS = 32
_TEXT = "How do I reset my password on the website?"
_WARM_UP = 100


@contextmanager
def _upstream(size: int) -> Iterator[str]:
    port = free_port()
    command = [sys.executable, "-m", "loadtest.bare_llm", str(port), str(size)]
    with running(command, f"http://127.0.0.1:{port}", "/") as url:
        yield url


def _chat_body(question: str, *, stream: bool = False) -> str:
    messages = [{"role": "user", "content": question}]
    return json.dumps({"model": "bench", "messages": messages, "stream": stream})


class _Client:
    """A kept connection."""

    def __init__(self, url: str) -> None:
        self._connection = http.client.HTTPConnection(url.removeprefix("http://"))

    def ask(self, body: str) -> tuple[float, bytes]:
        """Return the seconds to the first byte of the answer's body, and the body."""
        started = time.perf_counter()
        headers = {"Content-Type": "application/json"}
        self._connection.request("POST", "/v1/chat/completions", body.encode(), headers)
        response = self._connection.getresponse()
        first = response.read1(1)
        took_s = time.perf_counter() - started
        return took_s, first + response.read()


def _measure_misses(direct: str, proxied: str, requests: int, *, stream: bool) -> dict[str, float]:
    clients = {"direct": _Client(direct), "proxied": _Client(proxied)}
    times: dict[str, list[float]] = {name: [] for name in clients}
    for i in tqdm(range(_WARM_UP + requests), unit="request", leave=False):
        body = _chat_body(f"{_TEXT} Question number {i}, {'streamed' if stream else 'plain'}?")
        for name, client in clients.items():
            took_s, _ = client.ask(body)
            if i >= _WARM_UP:
                times[name].append(took_s)
    return {
        f"{name} p{percent}": 1000 * statistics.quantiles(taken, n=100)[percent - 1]
        for name, taken in times.items()
        for percent in (50, 99)
    }


def _measure_hits(
    stack: ExitStack, home: Path, model: str, upstream: str, rounds: int, seconds: int
) -> dict[str, list[float]]:
    rates: dict[str, list[float]] = {}
    for tier, flags in (
        ("hot", ()),
        ("exact", ("--cache-hot-bytes", "0", "--chat-hot-bytes", "0")),
    ):
        url = stack.enter_context(running_server(home, model, "--upstream", upstream, *flags))
        routes = {
            "embeddings": (f"{url}/v1/embeddings", body_of(_TEXT, model)),
            "chat": (f"{url}/v1/chat/completions", _chat_body(_TEXT)),
        }
        for target, body in routes.values():
            load(target, [body], clients=1, seconds=1)
        for _ in tqdm(range(rounds), unit="round", leave=False):
            for route, (target, body) in routes.items():
                found = load(target, [body], clients=_CLIENTS, seconds=seconds)
                rates.setdefault(f"{route} {tier}", []).append(found.requests_per_s)
    return rates


@click.command()
@click.option("--model", default="all-MiniLM-L6-v2", help="an installed model")
@click.option("--home", type=click.Path(path_type=Path), help="where models live")
@click.option("--requests", default=2_000, show_default=True, help="misses of each kind")
@click.option("--rounds", default=5, show_default=True)
@click.option("--seconds", default=3, show_default=True, help="of each measurement of hits")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="write every figure")
def main(
    model: str,
    home: Path | None,
    requests: int,
    rounds: int,
    seconds: int,
    json_path: Path | None,
) -> None:
    """Measure misses beside the upstream alone, and hits beside the embeddings route."""
    settings = load_settings({"home": str(home)} if home else {}, None)
    # An embedding's answer takes 4.9 kB as floats.
    size = 4_900 - len(completion(0))
    figures: dict[str, object] = {}
    with ExitStack() as stack:
        upstream = stack.enter_context(_upstream(size))
        proxied = stack.enter_context(
            running_server(settings.home, model, "--upstream", f"{upstream}/v1")
        )
        for name, stream in (("whole answers", False), ("first bytes of streams", True)):
            found = _measure_misses(upstream, proxied, requests, stream=stream)
            figures[name] = found
            added = found["proxied p50"] - found["direct p50"]
            shown = ", ".join(f"{what} {value:.2f} ms" for what, value in found.items())
            click.echo(f"{name}: {shown}; added at p50: {added:.2f} ms")
        rates = _measure_hits(stack, settings.home, model, f"{upstream}/v1", rounds, seconds)
        figures["hits"] = rates
    for tier in ("hot", "exact"):
        pairs = zip(rates[f"chat {tier}"], rates[f"embeddings {tier}"], strict=True)
        ratios = [chat / embeddings for chat, embeddings in pairs]
        rate = statistics.median(rates[f"chat {tier}"])
        spread = f"{min(ratios):.0%} to {max(ratios):.0%}"
        ratio = statistics.median(ratios)
        click.echo(f"{tier} hits: {rate:.0f}/s, {ratio:.0%} of the embeddings' rate ({spread})")
    if json_path:
        json_path.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
