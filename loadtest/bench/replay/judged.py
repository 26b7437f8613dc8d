"""The chat tier's promise over many seeds: judges that are good, doubtful and of no use.

Each seed draws requests from texts with groups, as `cacheproxy eval --chat` does, in front of an
upstream that words every answer anew. The output has a line for each judge: semantic hits, the
share of wrong ones, how many seeds broke the promise, and when the tier opened.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import NamedTemporaryFile

import click
import numpy as np

from cacheproxy.evaluation.chat import make_chat_traffic, make_judged_traffic
from cacheproxy.evaluation.coverage import Border, opens_at
from cacheproxy.evaluation.judged_replay import JudgedReplay, JudgedReplayer, JudgedTraffic
from cacheproxy.evaluation.simulated_judge import parse_judge
from cacheproxy.evaluation.study import Encoders
from cacheproxy.evaluation.traffic import Request, Texts, draw_requests, read_texts
from cacheproxy.inference.session import OnnxEncoder
from cacheproxy.inference.tokenizer import Tokenizer
from cacheproxy.modelkit.install import InstalledModel, load_installed
from cacheproxy.probes.static import StaticProbe
from cacheproxy.settings.settings import Settings
from cacheproxy.thresholds.judged.question_pair import rarity_of

from ..options import model_flags, smoke_flag

_JUDGES = (
    *("0.95,0.02", "0.9,0.05", "0.85,0.1", "0.95,0.02,turns", "0.95,0.02,obeys"),
    *(f"0.95,0.02,{manner}" for manner in ("accepts", "rejects", "random", "prose", "unreachable")),
)


_EARLY = 1_000

_FORMS = (
    "How do I change the {} of my account?",
    "How can I change the {} on my account?",
    "What do I do to change my {}?",
    "Where can one change the {}?",
)
_THINGS = """
password username avatar address language currency timezone subscription invoice playlist calendar
keyboard printer camera router firewall backup wallpaper ringtone alarm newsletter coupon passport
"""


@click.command()
@smoke_flag(requests=1_000, seeds=1, judges=("0.95,0.02",))
@model_flags
@click.argument("files", nargs=-1, type=click.Path(path_type=Path, exists=True))
@click.option("--requests", default=30_000, show_default=True, help="requests of each seed")
@click.option("--seeds", default=5, show_default=True)
@click.option("--first-seed", default=0, show_default=True)
@click.option("--judge", "judges", multiple=True, default=_JUDGES, help="error rates and manner")
@click.option("--border", type=int, help="instead, seeds of so many labels that must not open it")
def main(
    model: str,
    home: Path | None,
    files: tuple[Path, ...],
    requests: int,
    seeds: int,
    first_seed: int,
    judges: tuple[str, ...],
    border: int | None,
) -> None:
    """Whether the chat tier keeps its promise.

    Draws requests from FILES (JSON lines with text and cluster; by default from made-up questions)
    and replays them before simulated judges. With --border the statistics alone are run: as many
    neighbours are wrong as the promise allows at most, whatever their score, so that at most one
    seed in twenty may ever open the tier.
    """
    every = range(first_seed, first_seed + seeds)
    if border:
        for judge in judges:
            click.echo(f"{judge:24} {_border_line(judge, border, every)}")
        return
    installed = load_installed(model, home or Settings().home)
    texts = read_texts(files) if files else made_up()
    found: dict[str, list[JudgedReplay]] = {judge: [] for judge in judges}
    for seed in every:
        traffic = judged_traffic(installed, texts, draw_requests(texts, requests, seed))
        for judge in judges:
            found[judge].append(JudgedReplayer(traffic, parse_judge(judge), seed=seed).run())
    for judge, replays in found.items():
        click.echo(f"{judge:24} {_line(replays)}")


def judged_traffic(
    installed: InstalledModel, texts: Texts, requests: Sequence[Request]
) -> JudgedTraffic:
    """Return the traffic of requests that were made from texts with groups."""
    tokenizer = Tokenizer(installed.tokenizer_json, installed.max_tokens)
    encoders = Encoders(
        OnnxEncoder(installed.graph, device=installed.device).encode,
        StaticProbe(installed.static_probe),
        installed.fingerprint,
    )
    traffic = make_chat_traffic(
        requests,
        tokenizer.encode([request.text for request in requests]),
        texts,
        encoders,
        min_tokens=Settings().semantic.min_tokens,
        progress=lambda items, what: items,
    )
    return make_judged_traffic(requests, texts, traffic, rarity_of(tokenizer.vocabulary()))


def _border_line(judge: str, labels: int, seeds: Sequence[int]) -> str:
    rates = parse_judge(judge)
    border = Border(sensitivity=rates.sensitivity, false_rejects=rates.false_rejects, labels=labels)
    opened = [at for seed in seeds if (at := opens_at(border, seed)) is not None]
    early = sum(at <= _EARLY for at in opened)
    return (
        f"opened within {_EARLY:,} labels: {early} of {len(seeds)} seeds"
        f"  within {labels:,}: {len(opened)}"
    )


def _line(replays: Sequence[JudgedReplay]) -> str:
    hits = sum(replay.hits for replay in replays)
    wrong = sum(replay.wrong for replay in replays)
    over = sum(replay.error > 0.02 for replay in replays)
    opened = [replay.opened for replay in replays if replay.opened is not None]
    early = sum(
        replay.opened is not None and replay.opened < len(replay.outcomes) // 2
        for replay in replays
    )
    late = max(int(replay.is_wrong[len(replay.is_wrong) // 2 :].sum()) for replay in replays)
    reasons = {replay.standing.aside for replay in replays if replay.standing is not None}
    aside = "; ".join(sorted(reason for reason in reasons if reason))
    when = f"{np.median(opened):,.0f}" if opened else "never"
    return (
        f"hits {hits / len(replays):6,.0f}  wrong {wrong / hits if hits else 0:.2%}"
        f"  over 2 %: {over} of {len(replays)}  opened {len(opened)}, {early} in the first half,"
        f" median request {when}"
        f"  wrong in the second half, at most {late}  {aside}"
    )


def made_up() -> Texts:
    """Return questions in several wordings about several things."""
    rows = [
        {"text": form.format(thing), "cluster": thing}
        for form in _FORMS
        for thing in _THINGS.split()
    ]
    with NamedTemporaryFile("w", suffix=".jsonl") as file:
        file.write("\n".join(map(json.dumps, rows)))
        file.flush()
        return read_texts([Path(file.name)])
