"""The promise over many seeds of simulated traffic, and what its controller costs.

Each seed makes traffic with known risks (`cacheproxy/evaluation/simulated.py`): steady, and with a
shift half-way. The output shows how many seeds with enough hits to judge broke the promise, the
errors among all hits, and the hits as a share of those of the best fixed threshold that knows the
risks. Then it shows the controller's time for a text and the size of its state, with every
min_similarity kept.
"""

import os
import random
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import NamedTuple

import click
from tqdm import tqdm

from cacheproxy.evaluation.simulated import best_hits, play, simulate
from cacheproxy.thresholds.earned import EarnedThresholds
from cacheproxy.thresholds.promise import Promise

from ..options import smoke_flag

_MIN_SIMILARITY = 0.95
_SHIFTED = 0.92
_JUDGED = 10
"""A seed is judged if it has at least this many hits, divided by the promised error rate."""

_COST_ROUNDS = 5


class Run(NamedTuple):
    """The hits of one seed, the wrong ones among them, and the hits that were possible."""

    hits: int
    wrong: int
    best: int


@click.command()
@smoke_flag(seeds=2, requests=3_000)
@click.option("--seeds", default=200, show_default=True)
@click.option("--requests", default=30_000, show_default=True, help="texts of each seed")
def main(seeds: int, requests: int) -> None:
    """Whether thresholds keep their promise.

    Simulates traffic with many seeds, and measures what the thresholds cost.
    """
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for max_error in (0.01, 0.05):
            for later in (None, _SHIFTED):
                run = partial(_run, requests, max_error, later)
                name = f"{max_error:.0%}, {'steady' if later is None else 'with a shift'}"
                found = tqdm(pool.map(run, range(seeds)), desc=name, total=seeds, leave=False)
                click.echo(_line(name, list(found), max_error))
    for max_error in (0.01, 0.05):
        click.echo(_cost(max_error, requests))


def _make(max_error: float, seed: int, *min_similarities: float) -> EarnedThresholds:
    promise = Promise(max_error=max_error)
    if min_similarities:
        promise = Promise(max_error=max_error, min_similarities=min_similarities)
    return EarnedThresholds(promise, random=random.Random(seed).random)  # noqa: S311


def _run(requests: int, max_error: float, later: float | None, seed: int) -> Run:
    traffic = simulate(requests, seed, later=later)
    hits, wrong = play(_make(max_error, seed, _MIN_SIMILARITY), traffic, _MIN_SIMILARITY)
    return Run(len(hits), int(wrong.sum()), best_hits(traffic, max_error))


def _line(name: str, runs: list[Run], max_error: float) -> str:
    judged = [run for run in runs if run.hits >= _JUDGED / max_error]
    broken = sum(run.wrong > max_error * run.hits for run in judged)
    hits = sum(run.hits for run in runs)
    share = hits / max(1, sum(run.best for run in runs))
    return (
        f"{name:20} {broken} of {len(judged)} seeds broke the promise; wrong among all hits"
        f" {sum(run.wrong for run in runs) / max(1, hits):.2%}; {share:.0%} of the possible hits"
    )


def _cost(max_error: float, requests: int) -> str:
    times = []
    for seed in range(_COST_ROUNDS):
        traffic, thresholds = simulate(requests, seed), _make(max_error, seed)
        started = time.perf_counter()
        play(thresholds, traffic, _MIN_SIMILARITY)
        times.append((time.perf_counter() - started) / requests)
    return (
        f"{max_error:.0%}: {1e6 * statistics.median(times):.1f} us for a text,"
        f" state {len(thresholds.pack()):,} bytes"
    )
