"""The command `capacity`."""

import asyncio
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import click

from cacheproxy.errors import ConfigError

from ..sending import PATH
from ..traffic.recording import read_recording
from .check import check
from .hits import Popularity, counted, zipf
from .plan import COST_NAMES, Costs, Plan, Wanted, plan

_DAY_S = 86_400.0


@click.command("capacity")
@click.option("--texts", default=10_000_000, show_default=True, help="different texts asked for")
@click.option("--rate", default=1_000.0, show_default=True, help="requests per second")
@click.option("--zipf", "exponent", default=0.9, show_default=True, help="exponent of popularity")
@click.option("--unseen", default=0.1, show_default=True, help="share for texts asked for once")
@click.option("--recording", type=PATH, help="take all but the rate from it, not from Zipf's law")
@click.option("--entries", type=float, help="that the store may hold [as many as there are]")
@click.option("--ttl-days", default=30.0, show_default=True)
@click.option("--processes", default=4, show_default=True, help="serving processes")
@click.option("--hot-mb", default=64.0, show_default=True, help="hot tier of each process")
@click.option("--searched", default=1.0, show_default=True, help="of misses, by probe")
@click.option("--found", default=0.1, show_default=True, help="share of these that find an answer")
@click.option("--replicas", default=1, show_default=True, help="of each node")
@click.option(
    "--set", "given", multiple=True, metavar="NAME=NUMBER",
    help=f"another figure for one of: {', '.join(COST_NAMES)}",
)  # fmt: skip
@click.option("--check", "redis_url", help="measure the parts on this empty Redis instead")
@click.option(
    "--seconds", default=20.0, show_default=True, help="of each part of --check, once warm"
)
def capacity(
    texts: int,
    rate: float,
    exponent: float,
    unseen: float,
    recording: Path | None,
    entries: float | None,
    ttl_days: float,
    processes: int,
    hot_mb: float,
    searched: float,
    found: float,
    replicas: int,
    given: tuple[str, ...],
    redis_url: str | None,
    seconds: float,
) -> None:
    """Reckon hit rate, memory, nodes, network and cost.

    Nothing is sent, except with --check, which fills an empty Redis and compares.
    """
    if redis_url is not None:
        asyncio.run(_check(redis_url, texts, exponent, seconds))
        return
    if recording is None:
        popularity = zipf(texts, exponent, rate, unseen)
    else:
        popularity = _recorded(recording)
        popularity = popularity.scaled(rate / popularity.requests_per_s)
    wanted = Wanted(
        room=math.inf if entries is None else entries,
        hot_bytes=1e6 * hot_mb,
        processes=processes,
        ttl_s=_DAY_S * ttl_days,
        searched=searched,
        found=found,
        replicas=replicas,
    )
    click.echo(_as_text(plan(popularity, wanted, _costs(given)), popularity))


def _costs(given: tuple[str, ...]) -> Costs:
    figures = {}
    for one in given:
        name, _, number = one.partition("=")
        if name not in COST_NAMES:
            raise ConfigError(f"--set {one}: there is no such figure")
        try:
            figures[name] = float(number)
        except ValueError:
            raise ConfigError(f"--set {one}: {number!r} is not a number") from None
    return replace(Costs(), **figures)


def _recorded(path: Path) -> Popularity:
    recorded = read_recording(path)
    counts = Counter((one.namespace, digest) for one in recorded for digest in one.hashes)
    return counted(counts.values(), max(recorded[-1].at - recorded[0].at, 1.0))


async def _check(redis_url: str, texts: int, exponent: float, seconds: float) -> None:
    async for line in check(redis_url, texts, exponent, seconds):
        click.echo(line)


def _as_text(made: Plan, popularity: Popularity) -> str:
    hot, store = made.hot, made.store
    by_key = max(hot.hit_rate, store.hit_rate)
    lines = [
        f"asked for      {popularity.texts.sum():,.0f} texts again and again, "
        f"{popularity.requests_per_s:,.0f} requests/s",
        f"hit rate       {by_key:.1%} by key ({hot.hit_rate:.1%} in hot tiers), "
        f"{made.by_probe:.1%} by probe",
        f"entries        {store.entries:,.0f}, each for {_duration(store.stay_s)}",
        f"memory         {made.memory_bytes / 1e9:,.1f} GB on all masters",
        f"Redis nodes    {made.nodes}, without replicas "
        f"({made.nodes_for_memory} for memory, {made.nodes_for_work} for work by key)",
        f"probes         take {made.search_cores:,.2f} cores of every node",
        f"network        {8 * made.network_bytes / 1e9:,.2f} Gbit/s between servers and Redis",
        f"servers        {made.server_cores:,.1f} cores",
        f"cost           {made.cost_per_hour:,.2f} an hour",
    ]
    if made.search_cores > 1:
        lines.append(
            "               More than one core: Redis Stack 7.4 searches on one. Lower --searched."
        )
    return "\n".join(lines)


def _duration(seconds: float) -> str:
    hours = seconds / 3_600
    return f"{hours / 24:,.1f} days" if hours > 48 else f"{hours:,.1f} hours"
