"""What the proxy adds to a chat request, and how fast chat hits are.

Misses: new questions to an upstream that answers at once, by itself and through the proxy, with the
semantic tier closed and open (`chat_misses`); whole answers, and the first bytes of streams. Hits:
wrk with 32 connections, the chat route beside the embeddings route in turn, answers of equal size,
several rounds.
"""

import json
import statistics
from contextlib import ExitStack
from pathlib import Path

import click
from tqdm import tqdm

from ..servers.bare_llm import completion, running_llm
from ..servers.processes import running_server
from ..traffic.target import endpoint, user_message
from .caller import Caller
from .chat_misses import Misses
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
        misses = Misses(stack, settings.home, model, upstream)
        for name, stream in (("whole answers", False), ("first bytes of streams", True)):
            for state, added in misses.measure(requests, rounds, stream=stream).items():
                figures[f"{name}, {state}"] = added._asdict()
                click.echo(f"{name}, semantic tier {state}: {added}")
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
            "chat": (
                endpoint(url, "chat"),
                json.dumps({"model": "bench", "messages": user_message(_TEXT)}),
            ),
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
