"""What the proxy adds to a chat request, and how fast chat hits are.

Misses: one client sends new questions one after the other, in turn to an upstream that answers at
once, and through the proxy to that upstream. The difference of the medians is what the proxy adds,
to whole answers and to the first byte of streams. Hits: wrk with 32 connections, the chat route
beside the embeddings route in turn, answers of equal size, several rounds.
"""

import json
import statistics
from contextlib import ExitStack
from pathlib import Path

import click
from tqdm import tqdm

from ..errors import NotAnswered
from ..servers.bare_llm import completion, running_llm
from ..servers.processes import running_server
from ..traffic.target import endpoint, user_message
from .caller import Caller
from .options import PATH, model_flags, settings_of, smoke_flag
from .wrk import body_of, load

_CLIENTS = 32
_TEXT = "How do I reset my password on the website?"
_WARM_UP = 100
_EMBEDDING_BYTES = 4_900
"""Size of the answer to one text, with 384 numbers."""


@click.command()
@smoke_flag(requests=20, rounds=1, seconds=1)
@model_flags
@click.option("--requests", default=2_000, show_default=True, help="misses of each kind")
@click.option("--rounds", default=5, show_default=True)
@click.option("--seconds", default=3, show_default=True, help="of each measurement of hits")
@click.option("--json", "json_path", type=PATH, help="write all figures to this file")
def main(
    model: str,
    home: Path | None,
    requests: int,
    rounds: int,
    seconds: int,
    json_path: Path | None,
) -> None:
    """Chat: what a miss costs, and hits.

    Misses are compared with the upstream alone, hits with those of the embeddings route.
    """
    settings = settings_of(home)
    size = _EMBEDDING_BYTES - len(completion(0))
    figures: dict[str, object] = {}
    with ExitStack() as stack:
        upstream = stack.enter_context(running_llm(size))
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
        click.echo(f"{tier} hits: {rate:.0f}/s, {ratio:.0%} of the rate for embeddings ({spread})")
    if json_path:
        json_path.write_text(json.dumps(figures, indent=1) + "\n")


def _chat_body(question: str, *, stream: bool = False) -> str:
    return json.dumps({"model": "bench", "messages": user_message(question), "stream": stream})


def _measure_misses(direct: str, proxied: str, requests: int, *, stream: bool) -> dict[str, float]:
    callers = {
        "direct": Caller(endpoint(direct, "chat")),
        "proxied": Caller(endpoint(proxied, "chat")),
    }
    times: dict[str, list[float]] = {name: [] for name in callers}
    for i in tqdm(range(_WARM_UP + requests), unit="request", leave=False):
        body = _chat_body(
            f"{_TEXT} Question number {i}, {'streamed' if stream else 'plain'}?", stream=stream
        )
        for name, caller in callers.items():
            answer = caller.post(body)
            if stream and not answer.body.rstrip().endswith(b"[DONE]"):
                raise NotAnswered(f"{name}: a stream was cut short")
            if i >= _WARM_UP:
                times[name].append(answer.first_s)
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
            "embeddings": (endpoint(url, "embeddings"), body_of(_TEXT, model)),
            "chat": (endpoint(url, "chat"), _chat_body(_TEXT)),
        }
        for target, body in routes.values():
            caller = Caller(target)
            for _ in range(_WARM_UP):
                caller.post(body)
        for _ in tqdm(range(rounds), unit="round", leave=False):
            for route, (target, body) in routes.items():
                found = load(target, [body], clients=_CLIENTS, seconds=seconds)
                rates.setdefault(f"{route} {tier}", []).append(found.requests_per_s)
    return rates
