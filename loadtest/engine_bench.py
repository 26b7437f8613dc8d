"""The miss path against what else runs on this machine: `python -m loadtest.engine_bench`.

Every round measures all engines in turns of a few hundred milliseconds, and ratios are taken within
a round: a shared machine may be slower for seconds at a time, but then it is so for all. Shown are
medians over the rounds.
"""

import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
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
from cacheproxy.settings.sections import Settings
from cacheproxy.settings.sources import load_settings
from loadtest.contenders import BASELINE, OURS, Contender, float_encoder, make_contenders
from loadtest.roofline import Roofline
from loadtest.wrk import WrkResult, body_of, has_wrk, load, load_once, running_server

_GRID = tuple((texts, tokens) for texts in (1, 8, 32) for tokens in (16, 50, 128, 256))
_ROOFLINE_BATCH = (32, 50)
_ROOFLINE_TURNS = 10
_TURN_TEXTS = 200
_HTTP_CLIENTS = 64
_FIELDS = ("text", "query", "a", "prompt")


@dataclass
class Round:
    """One round's figures.

    Attributes:
        texts_per_s: offline, tokenising included, by engine.
        grid_s: seconds of one call by engine, for each batch of the grid.
        roofline_s: seconds of a 32 x 50 batch's products alone.
        batch_s: seconds of that batch in the engine.
        bare_s: median seconds of one text, tokenised and inferred with nothing around it.
        http: 64 clients with one unseen text each, or None without wrk.
        idle: one client.
    """

    texts_per_s: dict[str, float] = field(default_factory=dict)
    grid_s: dict[str, list[float]] = field(default_factory=dict)
    roofline_s: float = 0.0
    batch_s: float = 0.0
    bare_s: float = 0.0
    http: WrkResult | None = None
    idle: WrkResult | None = None


@dataclass(frozen=True)
class Bench:
    """What stays the same over the rounds."""

    model: InstalledModel
    home: Path
    texts: Sequence[str]
    unseen: Sequence[str]
    contenders: dict[str, Contender]
    roofline: Roofline
    encoder: OnnxEncoder
    with_http: bool

    def run(self) -> Round:
        """Measure everything once."""
        result = Round()
        seconds = dict.fromkeys(self.contenders, 0.0)
        for start in range(0, len(self.texts), _TURN_TEXTS):
            part = self.texts[start : start + _TURN_TEXTS]
            for name, contender in self.contenders.items():
                seconds[name] += _seconds(lambda c=contender, p=part: c.embed(p))  # type: ignore[misc]
        result.texts_per_s = {name: len(self.texts) / spent for name, spent in seconds.items()}
        for name, contender in self.contenders.items():
            result.grid_s[name] = [_time_batch(contender, *shape) for shape in _GRID]
        for _ in range(_ROOFLINE_TURNS):
            result.roofline_s += self.roofline.run() / _ROOFLINE_TURNS
            batch_s = _time_batch(self.contenders[OURS], *_ROOFLINE_BATCH)
            result.batch_s += batch_s / _ROOFLINE_TURNS
        if self.with_http:
            self._run_http(result)
        return result

    def _run_http(self, result: Round) -> None:
        name = self.model.name
        bodies = [body_of(text, name) for text in self.unseen]
        with running_server(self.home, name) as url:
            load(url, bodies[-1:], clients=1, seconds=1)  # wakes the machine up
            idle = load_once(url, bodies, clients=1, seconds=3)
            result.idle = idle
            asked = self.unseen[: idle.requests]
            result.bare_s = _time_bare(self.model, self.encoder, asked)
        with running_server(self.home, name) as url:
            result.http = load_once(url, bodies, clients=_HTTP_CLIENTS, seconds=8)


def _seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _time_batch(contender: Contender, texts: int, tokens: int) -> float:
    """Return the median seconds of one batch of so many texts of so many tokens."""
    rng = np.random.default_rng(texts * tokens)
    ids = rng.integers(1_000, 20_000, (texts, tokens))
    contender.embed_ids(ids)
    times = max(3, min(50, 4_000 // ids.size))
    return statistics.median(_seconds(lambda: contender.embed_ids(ids)) for _ in range(times))


def _time_bare(model: InstalledModel, encoder: OnnxEncoder, texts: Sequence[str]) -> float:
    tokenizer = Tokenizer(model.tokenizer_json, model.max_tokens)

    def answer(text: str) -> None:
        encoder.encode(np.array(tokenizer.encode([text]), np.int64))

    return statistics.median(_seconds(lambda t=text: answer(t)) for text in texts)  # type: ignore[misc]


def _median(rounds: Sequence[Round], value: Callable[[Round], float]) -> float:
    return statistics.median(value(one) for one in rounds)


def _show(bench: Bench, rounds: Sequence[Round]) -> None:
    tokens = sum(map(len, _tokenize(bench.model, bench.texts))) / len(bench.texts)
    click.echo(f"\n{len(bench.texts)} texts of {tokens:.1f} tokens, tokenising included")
    click.echo(f"{'engine':24s}{'texts/s':>10s}{f'of {BASELINE}':>16s}{'ours to it':>12s}")
    for name in bench.contenders:
        rate = _median(rounds, lambda r, n=name: r.texts_per_s[n])  # type: ignore[misc]
        gain = _ratio(rounds, name, BASELINE)
        click.echo(f"{name:24s}{rate:10.0f}{gain:15.2f}x{_ratio(rounds, OURS, name):11.2f}x")

    click.echo("\nmilliseconds of one batch (texts x tokens)")
    click.echo(f"{'engine':24s}" + "".join(f"{f'{b}x{t}':>9s}" for b, t in _GRID))
    for name in bench.contenders:
        cells = [_median(rounds, lambda r, n=name, i=i: r.grid_s[n][i]) for i in range(len(_GRID))]  # type: ignore[misc]
        click.echo(f"{name:24s}" + "".join(f"{1000 * cell:9.2f}" for cell in cells))

    rate = _median(rounds, lambda r: bench.roofline.operations / r.roofline_s)
    reached = _median(rounds, lambda r: r.roofline_s / r.batch_s)
    batch = _median(rounds, lambda r: r.batch_s)
    click.echo(
        f"\nINT8 products alone: {rate / 1e12:.2f} TOP/s; a 32 x 50 batch takes "
        f"{1000 * batch:.1f} ms and so reaches {reached:.0%} of that"
    )
    if rounds[0].http is None:
        click.echo("over HTTP: not measured, wrk is not installed")
        return
    http = _median(rounds, lambda r: r.http.requests_per_s if r.http else 0)
    share = _median(rounds, lambda r: r.http.requests_per_s / r.texts_per_s[OURS] if r.http else 0)
    click.echo(
        f"over HTTP, {_HTTP_CLIENTS} clients with one unseen text each: {http:.0f}/s, "
        f"{share:.0%} of offline"
    )
    idle = _median(rounds, lambda r: r.idle.p50_s if r.idle else 0)
    bare = _median(rounds, lambda r: r.bare_s)
    click.echo(
        f"idle, one text: {1000 * idle:.2f} ms over HTTP, {1000 * bare:.2f} ms bare: "
        f"{1000 * (idle - bare):+.2f} ms"
    )


def _ratio(rounds: Sequence[Round], name: str, other: str) -> float:
    return _median(rounds, lambda r: r.texts_per_s[name] / r.texts_per_s[other])


def _tokenize(model: InstalledModel, texts: Sequence[str]) -> list[list[int]]:
    return Tokenizer(model.tokenizer_json, model.max_tokens).encode(texts)


def _plot(bench: Bench, rounds: Sequence[Round], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, (bars, lines) = pyplot.subplots(1, 2, figsize=(12, 4.5))
    names = list(bench.contenders)
    rates = [_median(rounds, lambda r, n=name: r.texts_per_s[n]) for name in names]  # type: ignore[misc]
    bars.barh(names, rates)
    bars.set(xlabel="texts/s", title=f"{len(bench.texts)} real texts, tokenising included")
    for name in names:
        for texts in sorted({shape[0] for shape in _GRID}):
            cells = [(i, tokens) for i, (rows, tokens) in enumerate(_GRID) if rows == texts]
            rate = [
                texts * tokens / _median(rounds, lambda r, n=name, i=i: r.grid_s[n][i])  # type: ignore[misc]
                for i, tokens in cells
            ]
            lines.plot([tokens for _, tokens in cells], rate, marker="o", label=f"{name}, {texts}")
    lines.set(xlabel="tokens a text", ylabel="tokens/s", title="Batches by length and texts")
    lines.set_xscale("log", base=2)
    lines.set_ylim(bottom=0)
    lines.legend(fontsize="x-small")
    figure.tight_layout()
    figure.savefig(path)


def _read_texts(paths: Sequence[Path]) -> list[str]:
    if not paths:
        corpus = read_corpus(models_folder())
        return [*corpus.held_out, *corpus.calibration]
    rows = [json.loads(line) for path in paths for line in path.read_text().splitlines()]
    texts = [next(str(row[name]) for name in _FIELDS if name in row) for row in rows]
    order = np.random.default_rng(0).permutation(len(texts))
    return list(dict.fromkeys(texts[i] for i in order))


@click.command()
@click.argument("files", nargs=-1, type=click.Path(exists=True, path_type=Path))
@click.option("--model", default="all-MiniLM-L6-v2", help="an installed model")
@click.option("--home", type=click.Path(path_type=Path), help="where models live")
@click.option("--rounds", default=5, show_default=True)
@click.option("--texts", "count", default=1_600, show_default=True, help="texts embedded offline")
@click.option("--peer", help="also measure sentence-transformers: a model's name or folder")
@click.option("--no-http", is_flag=True, help="measure no server")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="write every figure")
@click.option("--plot", type=click.Path(path_type=Path), help="write a plot (.png, .svg)")
def main(
    files: tuple[Path, ...],
    model: str,
    home: Path | None,
    rounds: int,
    count: int,
    peer: str | None,
    no_http: bool,
    json_path: Path | None,
    plot: Path | None,
) -> None:
    """Compare engines on the texts of JSONL FILES (fields text, query, a, or prompt).

    Without files the calibration texts of the package are embedded, over and over.
    """
    settings: Settings = load_settings({"home": str(home)} if home else {}, None)
    installed = load_installed(load_manifest(model).name, settings.home)
    texts = _read_texts(files)
    # Numbered, a text is unseen again; a few digits change little of its length.
    unseen = [text if i < len(texts) else f"{text} {i}" for i, text in _cycle(texts, 40_000)]
    threads = settings.batch.threads
    encoder = float_encoder(installed, settings.home)
    bench = Bench(
        installed,
        settings.home,
        [text for _, text in _cycle(texts, count)],
        unseen,
        make_contenders(
            installed,
            settings.home,
            threads=threads,
            max_tokens=settings.batch.max_tokens,
            peer=peer,
        ),
        Roofline(encoder, int(np.prod(_ROOFLINE_BATCH)), threads=threads),
        OnnxEncoder(installed.graph),
        with_http=has_wrk() and not no_http,
    )
    click.echo(f"{installed.name} on {threads} cores ({isa_class()}), {rounds} rounds")
    for contender in bench.contenders.values():
        contender.embed(bench.texts[:100])
    done = [bench.run() for _ in tqdm(range(rounds), unit="round")]
    _show(bench, done)
    if json_path:
        json_path.write_text(json.dumps([asdict(one) for one in done], indent=1) + "\n")
    if plot:
        _plot(bench, done, plot)


def _cycle(texts: Sequence[str], count: int) -> list[tuple[int, str]]:
    return [(i, texts[i % len(texts)]) for i in range(count)]


if __name__ == "__main__":
    main()
