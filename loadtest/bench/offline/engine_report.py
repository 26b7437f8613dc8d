"""Shows and plots the rounds of the engine benchmark."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click

from ..wrk import WrkResult
from .contenders import BASELINE, OURS


@dataclass
class Round:
    """The figures of one round.

    Attributes:
        texts_per_s: offline, tokenising included, by engine.
        grid_s: seconds of one call, by engine, for each batch of the grid.
        roofline_s: seconds of the matrix products of a 32 x 50 batch alone.
        batch_s: seconds of that batch in our engine.
        bare_s: median seconds of one text, tokenised and inferred with nothing around it.
        http: load with one unseen text in each request, or None if it was not measured.
        http_later: the same right after it, when the semantic tier, unless the machine is slow, has
            had its first trial of 2,000 texts and rests.
        idle: the same with one client.
        bare_long_s, idle_long: as `bare_s` and `idle`, of texts of the model's longest length.
    """

    texts_per_s: dict[str, float] = field(default_factory=dict)
    grid_s: dict[str, list[float]] = field(default_factory=dict)
    roofline_s: float = 0.0
    batch_s: float = 0.0
    bare_s: float = 0.0
    http: WrkResult | None = None
    http_later: WrkResult | None = None
    idle: WrkResult | None = None
    bare_long_s: float = 0.0
    idle_long: WrkResult | None = None


@dataclass(frozen=True)
class Measured:
    """All rounds, and what they measured.

    Attributes:
        rounds: in their order.
        grid: batches as (texts, tokens).
        texts: number of texts embedded offline.
        mean_tokens: of these texts.
        operations: multiplications and additions of a 32 x 50 batch.
    """

    rounds: Sequence[Round]
    grid: Sequence[tuple[int, int]]
    texts: int
    mean_tokens: float
    operations: int

    @property
    def engines(self) -> list[str]:
        """Names of the engines."""
        return list(self.rounds[0].texts_per_s)

    def rate(self, engine: str) -> float:
        """Return the texts/s of an engine, offline."""
        return _median(one.texts_per_s[engine] for one in self.rounds)

    def ratio(self, engine: str, other: str) -> float:
        """Return the texts/s of an engine as a multiple of another's."""
        return _median(one.texts_per_s[engine] / one.texts_per_s[other] for one in self.rounds)

    def cells_s(self, engine: str) -> list[float]:
        """Return the seconds of each batch of the grid."""
        rounds = [one.grid_s[engine] for one in self.rounds]
        return [_median(times) for times in zip(*rounds, strict=True)]


def show_rounds(measured: Measured, clients: int) -> None:
    """Print the medians; `clients` is the number of HTTP clients."""
    rounds = measured.rounds
    click.echo(
        f"\n{measured.texts} texts of {measured.mean_tokens:.1f} tokens, tokenising included"
    )
    click.echo(f"{'engine':24s}{'texts/s':>10s}{f'of {BASELINE}':>16s}{'ours to it':>12s}")
    for name in measured.engines:
        gain, ours = measured.ratio(name, BASELINE), measured.ratio(OURS, name)
        click.echo(f"{name:24s}{measured.rate(name):10.0f}{gain:15.2f}x{ours:11.2f}x")

    click.echo("\nmilliseconds of one batch (texts x tokens)")
    click.echo(f"{'engine':24s}" + "".join(f"{f'{b}x{t}':>9s}" for b, t in measured.grid))
    for name in measured.engines:
        cells = "".join(f"{1000 * cell:9.2f}" for cell in measured.cells_s(name))
        click.echo(f"{name:24s}{cells}")

    rate = _median(measured.operations / one.roofline_s for one in rounds)
    reached = _median(one.roofline_s / one.batch_s for one in rounds)
    batch = _median(one.batch_s for one in rounds)
    click.echo(
        f"\nINT8 matrix products alone: {rate / 1e12:.2f} TOP/s; a 32 x 50 batch takes "
        f"{1000 * batch:.1f} ms and reaches {reached:.0%} of that"
    )
    http = [(one.http, one.idle, one) for one in rounds if one.http and one.idle]
    if not http:
        click.echo("over HTTP: not measured (--no-http, or wrk is not installed)")
        return
    served = _median(load.requests_per_s for load, _, _ in http)
    share = _median(load.requests_per_s / one.texts_per_s[OURS] for load, _, one in http)
    click.echo(
        f"over HTTP, {clients} clients with one unseen text each: {served:.0f}/s, "
        f"{share:.0%} of offline"
    )
    idle = _median(idle.p50_s for _, idle, _ in http)
    bare = _median(one.bare_s for one in rounds)
    click.echo(
        f"idle, one text: {1000 * idle:.2f} ms over HTTP, {1000 * bare:.2f} ms bare: "
        f"{1000 * (idle - bare):+.2f} ms"
    )


def plot_rounds(measured: Measured, path: Path) -> None:
    """Write a plot of the medians."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, (bars, lines) = pyplot.subplots(1, 2, figsize=(12, 4.5))
    names = measured.engines
    bars.barh(names, [measured.rate(name) for name in names])
    bars.set(xlabel="texts/s", title=f"{measured.texts} texts, tokenising included")
    for name in names:
        cells = list(zip(measured.grid, measured.cells_s(name), strict=True))
        for texts in sorted({rows for rows, _ in measured.grid}):
            row = [(tokens, seconds) for (rows, tokens), seconds in cells if rows == texts]
            rates = [texts * tokens / seconds for tokens, seconds in row]
            lines.plot([tokens for tokens, _ in row], rates, marker="o", label=f"{name}, {texts}")
    lines.set(xlabel="tokens of a text", ylabel="tokens/s", title="Batches by length and size")
    lines.set_xscale("log", base=2)
    lines.set_ylim(bottom=0)
    lines.legend(fontsize="x-small")
    figure.tight_layout()
    figure.savefig(path)


def _median(values: Iterable[float]) -> float:
    return statistics.median(values)
