"""The miss path beside other engines on this machine, offline and over HTTP.

Every round measures all engines in turns of a few hundred milliseconds, and ratios are taken within
a round: a shared machine may be slower for seconds, but then it is so for all engines. Shown are
medians over the rounds.
"""

import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import click
import numpy as np
from tqdm import tqdm

from cacheproxy.inference.session import OnnxEncoder
from cacheproxy.inference.tokenizer import Tokenizer
from cacheproxy.modelkit.building.corpus import read_corpus
from cacheproxy.modelkit.install import InstalledModel, load_installed
from cacheproxy.modelkit.isa import isa_class
from cacheproxy.modelkit.manifest import load_manifest, models_folder
from cacheproxy.settings.settings import Settings

from ..servers.processes import running_server
from ..traffic.target import endpoint
from .offline.contenders import OURS, Contender, float_encoder, make_contenders
from .offline.engine_report import Measured, Round, plot_rounds, show_rounds
from .offline.roofline import Roofline
from .options import PATH, model_flags, settings_of, smoke_flag
from .wrk import body_of, has_wrk, load, load_once

_GRID = tuple((texts, tokens) for texts in (1, 8, 32) for tokens in (16, 50, 128, 256))
_ROOFLINE_BATCH = (32, 50)
_ROOFLINE_TURNS = 10
_TURN_TEXTS = 200
_HTTP_CLIENTS = 64
_UNSEEN_PER_S = 20_000
"""More unseen texts a second than any machine answers that the benchmark was made for."""

_LONG = " time" * 300
"""What a text of the model's longest length consists of, after its number."""

_MOST_LONG = 5_000
_BARE_LONG = 10

_FIELDS = ("text", "query", "a", "prompt")


@click.command()
@smoke_flag(rounds=1, count=16, longest=16, calls=1, seconds=1)
@click.argument("files", nargs=-1, type=click.Path(exists=True, path_type=Path))
@model_flags
@click.option("--rounds", default=5, show_default=True)
@click.option("--texts", "count", default=1_600, show_default=True, help="texts embedded offline")
@click.option("--longest", default=256, show_default=True, help="tokens of the longest batches")
@click.option("--calls", default=50, show_default=True, help="most calls for each batch")
@click.option("--seconds", default=8, show_default=True, help="of the load over HTTP")
@click.option("--peer", help="also measure sentence-transformers: a model's name or folder")
@click.option("--no-http", is_flag=True, help="measure no server")
@click.option("--json", "json_path", type=PATH, help="write all figures to this file")
@click.option("--plot", type=PATH, help="write a plot (.png, .svg)")
def main(
    files: tuple[Path, ...],
    model: str,
    home: Path | None,
    rounds: int,
    count: int,
    longest: int,
    calls: int,
    seconds: int,
    peer: str | None,
    no_http: bool,
    json_path: Path | None,
    plot: Path | None,
) -> None:
    """Cache misses: our engine beside others.

    FILES are JSONL with texts in a field text, query, a, or prompt. Without files, the calibration
    texts of the package are embedded, over and over.
    """
    settings = settings_of(home)
    bench = make_bench(
        settings,
        model,
        files,
        [(rows, tokens) for rows, tokens in _GRID if tokens <= longest],
        count=count,
        calls=calls,
        http_s=seconds if has_wrk() and not no_http else None,
        peer=peer,
    )
    installed = bench.model
    click.echo(
        f"{installed.name} on {settings.batch.threads} cores ({isa_class()}), {rounds} rounds"
    )
    done = [bench.run() for _ in tqdm(range(rounds), unit="round")]
    ids = Tokenizer(installed.tokenizer_json, installed.max_tokens).encode(bench.texts)
    measured = Measured(
        rounds=done,
        grid=bench.grid,
        texts=len(ids),
        mean_tokens=statistics.mean(map(len, ids)),
        operations=bench.roofline.operations,
    )
    show_rounds(measured, _HTTP_CLIENTS)
    if json_path:
        json_path.write_text(json.dumps([asdict(one) for one in done], indent=1) + "\n")
    if plot:
        plot_rounds(measured, plot)


def make_bench(
    settings: Settings,
    model: str,
    files: Sequence[Path],
    grid: Sequence[tuple[int, int]],
    *,
    count: int,
    calls: int,
    http_s: int | None,
    peer: str | None = None,
) -> "EngineBench":
    """Return the benchmark of a model; its engines are warm.

    Raises:
        CacheproxyError: the model is not installed.
    """
    installed = load_installed(load_manifest(model).name, settings.home)
    texts = read_texts(files)
    threads = settings.batch.threads
    float_weights = float_encoder(installed, settings.home)
    bench = EngineBench(
        model=installed,
        home=settings.home,
        texts=list(islice(cycle(texts), count)),
        unseen=_unseen(texts, _UNSEEN_PER_S * (http_s or 0)),
        contenders=make_contenders(
            installed,
            settings.home,
            threads=threads,
            max_tokens=settings.batch.max_tokens,
            peer=peer,
        ),
        grid=grid,
        roofline=Roofline(float_weights, int(np.prod(_ROOFLINE_BATCH)), threads=threads),
        encoder=OnnxEncoder(installed.graph),
        calls=calls,
        http_s=http_s,
    )
    for contender in bench.contenders.values():
        contender.embed(bench.texts[:100])
    return bench


@dataclass(frozen=True)
class EngineBench:
    """What stays the same over the rounds; `http_s` is None if HTTP is not measured."""

    model: InstalledModel
    home: Path
    texts: Sequence[str]
    unseen: Sequence[str]
    contenders: dict[str, Contender]
    grid: Sequence[tuple[int, int]]
    roofline: Roofline
    encoder: OnnxEncoder
    calls: int
    http_s: int | None

    def run(self) -> Round:
        """Measure everything once."""
        result = Round()
        seconds = dict.fromkeys(self.contenders, 0.0)
        for start in range(0, len(self.texts), _TURN_TEXTS):
            part = self.texts[start : start + _TURN_TEXTS]
            for name, contender in self.contenders.items():
                seconds[name] += _seconds(contender.embed, part)
        result.texts_per_s = {name: len(self.texts) / spent for name, spent in seconds.items()}
        for name, contender in self.contenders.items():
            result.grid_s[name] = [self._time_batch(contender, *shape) for shape in self.grid]
        turns = min(_ROOFLINE_TURNS, self.calls)
        for _ in range(turns):
            result.roofline_s += self.roofline.run() / turns
            result.batch_s += self._time_batch(self.contenders[OURS], *_ROOFLINE_BATCH) / turns
        if self.http_s is not None:
            self._run_http(result, self.http_s)
        return result

    def _time_batch(self, contender: Contender, texts: int, tokens: int) -> float:
        """Return the median seconds of one batch of `texts` texts with `tokens` tokens each."""
        rng = np.random.default_rng(texts * tokens)
        ids = rng.integers(1_000, 20_000, (texts, tokens))
        contender.embed_ids(ids)
        calls = min(self.calls, max(3, 4_000 // ids.size))
        return statistics.median(_seconds(contender.embed_ids, ids) for _ in range(calls))

    def _run_http(self, result: Round, seconds: int) -> None:
        name = self.model.name
        bodies = [body_of(text, name) for text in self.unseen]
        with running_server(self.home, name) as url:
            route = endpoint(url, "embeddings")
            load(route, bodies[-1:], clients=1, seconds=1)  # wakes up a machine that saves power
            idle = load_once(route, bodies, clients=1, seconds=max(1, 3 * seconds // 8))
            result.idle = idle
            result.bare_s = _time_bare(self.model, self.encoder, self.unseen[: idle.requests])
            long = [f"{number}{_LONG}" for number in range(_MOST_LONG)]
            bodies_long = [body_of(text, name) for text in long]
            result.idle_long = load_once(
                route, bodies_long, clients=1, seconds=max(1, seconds // 4)
            )
            result.bare_long_s = _time_bare(self.model, self.encoder, long[:_BARE_LONG])
        with running_server(self.home, name) as url:
            route = endpoint(url, "embeddings")
            half = len(bodies) // 2
            result.http, result.http_later = (
                load_once(route, part, clients=_HTTP_CLIENTS, seconds=seconds)
                for part in (bodies[:half], bodies[half:])
            )


def _seconds(work: Callable[[Any], object], given: Any) -> float:
    started = time.perf_counter()
    work(given)
    return time.perf_counter() - started


def _time_bare(model: InstalledModel, encoder: OnnxEncoder, texts: Sequence[str]) -> float:
    """Return the median seconds of one text, tokenised and inferred with nothing around it."""
    tokenizer = Tokenizer(model.tokenizer_json, model.max_tokens)

    def answer(text: str) -> None:
        encoder.encode(np.array(tokenizer.encode([text]), np.int64))

    return statistics.median(_seconds(answer, text) for text in texts)


def read_texts(paths: Sequence[Path]) -> list[str]:
    if not paths:
        corpus = read_corpus(models_folder())
        return [*corpus.held_out, *corpus.calibration]
    rows = [json.loads(line) for path in paths for line in path.read_text().splitlines()]
    texts = [next(str(row[name]) for name in _FIELDS if name in row) for row in rows]
    order = np.random.default_rng(0).permutation(len(texts))
    return list(dict.fromkeys(texts[i] for i in order))


def _unseen(texts: Sequence[str], count: int) -> list[str]:
    # With its number a text is unseen again; a few digits change little of its length.
    repeated = enumerate(islice(cycle(texts), count))
    return [text if i < len(texts) else f"{text} {i}" for i, text in repeated]
