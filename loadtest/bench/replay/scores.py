"""What a score of question pairs can gain over the cosine, on groups that it has not seen.

Each seed splits the groups of texts into two halves. The learned score is fitted on true labels of
one half and orders the neighbours of the other. Nothing is certified here: each score gets the
threshold that hindsight shows to be the best one. The output compares them with what no score can
exceed: every lookup that has a right neighbour among the candidates, and as many wrong ones more as
the promise allows.
"""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
from numpy.typing import NDArray

from cacheproxy.evaluation.judged_replay import JudgedTraffic
from cacheproxy.evaluation.traffic import all_requests, draw_requests, read_texts
from cacheproxy.modelkit.install import load_installed
from cacheproxy.settings.settings import Settings
from cacheproxy.thresholds.bands import EDGES
from cacheproxy.thresholds.judged.evidence import FEATURES, LABEL
from cacheproxy.thresholds.judged.learned import LearnedScore, learn
from cacheproxy.thresholds.judged.thresholds import CANDIDATES

from ..options import model_flags, smoke_flag
from .judged import judged_traffic, made_up


class Lookups(NamedTuple):
    """The lookups among the texts of some groups; unused candidates have NaN features.

    Attributes:
        features: float32 [lookups, CANDIDATES, FEATURES], the nearest candidate first.
        is_right: bool [lookups, CANDIDATES].
        halves: int64 [lookups, CANDIDATES], of the candidates, as labels have them.
    """

    features: NDArray[np.float32]
    is_right: NDArray[np.bool_]
    halves: NDArray[np.int64]


@click.command()
@smoke_flag(requests=500, seeds=1, labels=300)
@model_flags
@click.argument("files", nargs=-1, type=click.Path(path_type=Path, exists=True))
@click.option("--requests", default=30_000, show_default=True, help="requests of each seed")
@click.option("--once", is_flag=True, help="instead, every text once, in random order")
@click.option("--seeds", default=3, show_default=True)
@click.option("--first-seed", default=0, show_default=True)
@click.option("--labels", default=2_000, show_default=True, help="labels to learn from, at most")
@click.option("--max-error", default=0.02, show_default=True, help="share of wrong hits, at most")
def main(
    model: str,
    home: Path | None,
    files: tuple[Path, ...],
    requests: int,
    once: bool,
    seeds: int,
    first_seed: int,
    labels: int,
    max_error: float,
) -> None:
    """What a learned score can gain over the cosine.

    Compares hits on groups of FILES (JSON lines with text and cluster, or pairs; by default made-up
    questions) that the score has not seen.
    """
    installed = load_installed(model, home or Settings().home)
    texts = read_texts(files) if files else made_up()
    for seed in range(first_seed, first_seed + seeds):
        if once:
            drawn = all_requests(texts)
            random.Random(seed).shuffle(drawn)  # noqa: S311
        else:
            drawn = draw_requests(texts, requests, seed)
        traffic = judged_traffic(installed, texts, drawn)
        click.echo(f"seed {seed:<5} {_line(traffic, labels, max_error, seed)}")


def _line(traffic: JudgedTraffic, labels: int, max_error: float, seed: int) -> str:
    rng = np.random.default_rng(seed)
    sides = rng.integers(0, 2, int(traffic.groups.max()) + 1)[traffic.groups]
    halves = rng.integers(0, 2, len(traffic.texts))
    both = [_lookups(traffic, sides == side, halves) for side in (0, 1)]
    cosine = learned = right = 0
    is_learned = True
    for seen, unseen in (both, both[::-1]):
        right += int(unseen.is_right.any(axis=1).sum())
        nearest = unseen.features[:, 0, 0].astype(np.float64)
        cosine += hits_in_hindsight(nearest, unseen.is_right[:, 0], max_error)
        score = _learned_from(seen, labels, rng)
        if score is None:
            is_learned = False
        else:
            learned += hits_in_hindsight(*_best(unseen, score), max_error)
    most = right / (1 - max_error)

    def times(hits: float) -> str:
        return f"{hits:,.0f} ({hits / cosine:.2f}x)" if cosine else f"{hits:,.0f}"

    told = times(learned) if is_learned else "none, too few labels"
    return f"hits: cosine {cosine:,}  learned {told}  any score, at most {times(most)}"


def _lookups(
    traffic: JudgedTraffic, is_in: NDArray[np.bool_], halves: NDArray[np.int64]
) -> Lookups:
    """Return the lookups of those texts among themselves, each at its first request."""
    base = traffic.traffic
    near, scores = base.near
    known = np.zeros(len(traffic.texts), np.bool_)
    found: list[tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.int64]]] = []
    for text in dict.fromkeys(base.requests.tolist()):
        if not is_in[text]:
            continue
        at = np.flatnonzero(known[near[text]] & (scores[text] >= EDGES[0]))[:CANDIDATES]
        if len(at) and base.is_long[text]:
            features = np.full((CANDIDATES, FEATURES), np.nan, np.float32)
            is_right = np.zeros(CANDIDATES, np.bool_)
            of_halves = np.zeros(CANDIDATES, np.int64)
            for place, one in enumerate(at.tolist()):
                other = int(near[text, one])
                features[place] = traffic.features(text, other, float(scores[text, one]))
                is_right[place] = traffic.groups[text] == traffic.groups[other]
                of_halves[place] = halves[other]
            found.append((features, is_right, of_halves))
        known[text] = True
    if not found:
        raise click.ClickException("no two of these texts are near each other")
    return Lookups(*(np.stack(part) for part in zip(*found, strict=True)))


def _learned_from(seen: Lookups, most: int, rng: np.random.Generator) -> LearnedScore | None:
    chosen = rng.permutation(len(seen.features))[:most]
    labels = np.zeros(len(chosen), LABEL)
    labels["features"] = seen.features[chosen, 0]
    labels["half"] = seen.halves[chosen, 0]
    labels["is_rejected"] = ~seen.is_right[chosen, 0]
    return learn(labels)


def _best(unseen: Lookups, score: LearnedScore) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the score of each lookup's best candidate, and whether that is right."""
    flat = unseen.features.reshape(-1, FEATURES)
    odds = score.odds(np.nan_to_num(flat), unseen.halves.ravel()).reshape(unseen.halves.shape)
    odds[np.isnan(unseen.features[:, :, 0])] = -np.inf
    best = odds.argmax(axis=1)[:, None]
    picked = np.take_along_axis(unseen.is_right, best, axis=1)[:, 0]
    return np.take_along_axis(odds, best, axis=1)[:, 0], picked


def hits_in_hindsight(
    scores: Sequence[float] | NDArray[np.float64],
    is_right: Sequence[bool] | NDArray[np.bool_],
    max_error: float,
) -> int:
    """Return the most hits above one threshold of which at most this share is wrong."""
    values = np.asarray(scores)
    order = np.argsort(-values, kind="stable")
    count = np.arange(1, len(order) + 1)
    wrong = np.cumsum(~np.asarray(is_right, np.bool_)[order])
    # A threshold cannot part equal scores.
    is_last = np.append(np.diff(values[order]) != 0, True)
    return int(count[is_last & (wrong <= max_error * count)].max(initial=0))
