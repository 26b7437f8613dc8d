"""One table of how fast everything is: the engine, misses, hits, and small requests beside large.

Each row compares with something that ran in the same round on the same machine, or with the same
under other load, and has its goal beside it: ratios travel between machines, milliseconds do not.
Shown are medians over the rounds, with the least and the most. It is made of the other benchmarks
and scenarios (`engine`, `hits`, `large-answers`, `seed-table`), which tell more about each.
"""

import platform
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click
import msgspec
import onnxruntime
from tqdm import tqdm

from cacheproxy.modelkit.isa import isa_class
from cacheproxy.settings.settings import Settings

from ..client.fleet import Assignment
from ..errors import NotAnswered
from ..results.result import PhaseResult
from ..results.scrape import scrape
from ..run import run
from ..servers.served import Served
from ..traffic.scenario import Scenario, load_scenario
from ..traffic.target import Target
from .engine import make_bench
from .hits import BARE, BARE_GET, EXACT, HOT, running_pairs
from .offline.contenders import BASELINE, DYNAMIC, OURS
from .offline.engine_report import Round
from .options import model_flags, settings_of, smoke_flag
from .wrk import has_wrk

_GRID = ((1, 16), (1, 50), (1, 128), (1, 256), (8, 50))
_CPUINFO = Path("/proc/cpuinfo")
_RATES_PER_S = (1_500, 1_500, 2_800)
"""The first one twice: a new server's semantic tier tries itself out on its first 2,000 texts."""
_WHEN = ("a new server", "seconds later")


@dataclass
class Row:
    """A line of the table: what was measured in each round, beside what, and what is wanted.

    Attributes:
        what, unit: what was measured, and in what unit.
        beside: with what it is compared, in each round; "" if with nothing.
        goal: limit of the comparison; `at_least` says whether it is the least or the most.
        is_difference: whether the comparison is a difference, not a ratio.
    """

    what: str
    unit: str
    beside: str
    goal: float
    at_least: bool = False
    is_difference: bool = False
    ours: list[float] = field(default_factory=list)
    others: list[float] = field(default_factory=list)

    def add(self, ours: float, other: float | None = None) -> None:
        """Add a round's figures."""
        self.ours.append(ours)
        if other is not None:
            self.others.append(other)

    @property
    def compared(self) -> list[float]:
        """The comparison of each round."""
        if not self.others:
            return self.ours
        pairs = zip(self.ours, self.others, strict=True)
        if self.is_difference:
            return [one - other for one, other in pairs]
        return [one / other for one, other in pairs]

    def cells(self) -> list[str]:
        """Return the cells of the table."""
        form: Callable[[float], str] = f"{{:.3g}} {self.unit}".format
        if self.others and not self.is_difference:
            form = "{:.2f}x".format
        found = self.compared
        middle = statistics.median(found)
        is_met = middle >= self.goal if self.at_least else middle <= self.goal
        return [
            self.what,
            f"{statistics.median(self.ours):,.4g} {self.unit}",
            f"{statistics.median(self.others):,.4g} ({self.beside})" if self.others else "",
            f"{form(middle)} ({form(min(found))} to {form(max(found))})",
            f"{'at least' if self.at_least else 'at most'} {form(self.goal)}",
            "yes" if is_met else "no",
        ]


class Table:
    """Rows by name, in the order in which they were first asked for."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self._shown = 0

    def row(
        self,
        what: str,
        unit: str,
        beside: str,
        goal: float,
        *,
        at_least: bool = False,
        is_difference: bool = False,
    ) -> Row:
        """Return the row of this name."""
        row = Row(what, unit, beside, goal, at_least, is_difference)
        return self.rows.setdefault(what, row)

    def show(self) -> None:
        """Print the rows that have not been printed, as Markdown."""
        head = ("what", "ours", "beside", "compared (least to most)", "goal", "met")
        lines = [] if self._shown else [head, ("---",) * len(head)]
        rows = [row.cells() for row in self.rows.values()]
        for cells in (*lines, *rows[self._shown :]):
            click.echo(f"| {' | '.join(cells)} |")
        self._shown = len(rows)


@dataclass(frozen=True)
class _Given:
    settings: Settings
    model: str
    files: Sequence[Path]
    redis_url: str | None
    rounds: int
    texts: int
    calls: int
    seconds: int
    is_smoke: bool

    def each_round(self, name: str) -> Iterator[int]:
        return iter(tqdm(range(self.rounds), desc=name, unit="round"))


def _engine(given: _Given, table: Table) -> None:
    """The engine beside ONNX Runtime, and the server beside the engine."""
    bench = make_bench(
        given.settings,
        given.model,
        given.files,
        _GRID,
        count=given.texts,
        calls=given.calls,
        http_s=given.seconds if has_wrk() else None,
    )
    for _ in given.each_round("engine"):
        add_engine(bench.run(), table)


def add_engine(found: Round, table: Table) -> None:
    """Add a round of the engine to the rows that compare it."""
    for number, (texts, tokens) in enumerate(_GRID):
        ours, *others = (1_000 * found.grid_s[name][number] for name in (OURS, BASELINE, DYNAMIC))
        what = f"{texts} x {tokens} tokens" if texts > 1 else f"a lone text of {tokens} tokens"
        table.row(what, "ms", "best of ONNX Runtime's defaults", 1.0).add(ours, min(others))
    rates = found.texts_per_s
    for name, goal in ((BASELINE, 3.3), (DYNAMIC, 1.9)):
        what = f"texts offline, to {name}"
        table.row(what, "/s", name, goal, at_least=True).add(rates[OURS], rates[name])
    if found.idle is None or found.idle_long is None:
        return
    for seen, when in zip((found.http, found.http_later), _WHEN, strict=True):
        if seen is not None:
            what = f"unseen texts over HTTP, 64 clients, {when}"
            table.row(what, "/s", "offline", 0.75, at_least=True).add(
                seen.requests_per_s, rates[OURS]
            )
    table.row("idle, a short text", "ms", "bare engine", 1.0, is_difference=True).add(
        1_000 * found.idle.p50_s, 1_000 * found.bare_s
    )
    table.row("idle, the longest text", "ms", "bare engine", 1.1).add(
        1_000 * found.idle_long.p50_s, 1_000 * found.bare_long_s
    )


def _hits(given: _Given, table: Table) -> None:
    """Hits beside bare servers."""
    with running_pairs(given.settings.home, given.model, given.redis_url) as measure:
        for _ in given.each_round("hits"):
            found = measure(given.seconds)
            for name, bare, goal in ((HOT, BARE, 0.75), (EXACT, BARE_GET, 1.0)):
                if name in found:
                    table.row(name, "/s", bare, goal, at_least=True).add(
                        found[name].requests_per_s, found[bare].requests_per_s
                    )


def _large(given: _Given, table: Table) -> None:
    """Small requests beside those of 2,048 texts."""
    scenario = load_scenario("large-answers")
    for _ in given.each_round("large"):
        alone, *beside = _run(given, scenario)
        for phase in beside:
            for own, other in zip(phase.streams[:2], alone.streams, strict=True):
                what = f"p99 of small {own.name} {phase.name} (2,048 texts)"
                table.row(what, "ms", "alone", 2.0).add(
                    own.figures["p99_ms"], other.figures["p99_ms"]
                )


def _mixed(given: _Given, table: Table) -> None:
    """A mix of hits and unseen texts at fixed rates, and memory."""
    scenario = load_scenario("seed-table")
    (phase,) = (one for one in scenario.phases if one.name == "1,500/s")
    phases = [
        msgspec.structs.replace(
            phase,
            name=f"{per_s:,}/s",
            streams=tuple(msgspec.structs.replace(one, per_s=per_s) for one in phase.streams),
            may_refuse=True,
        )
        for per_s in _RATES_PER_S
    ]
    scenario = msgspec.structs.replace(scenario, phases=tuple(phases), promises=())
    for _ in given.each_round("mixed"):
        ready: list[float] = []
        *slow, fast = _run(given, scenario, ready)
        for seen, when in zip(slow, _WHEN, strict=True):
            table.row(f"p99 at 1,500/s, 68 % hits, {when}", "ms", "", 20.0).add(
                seen.streams[0].figures["p99_ms"]
            )
        table.row("answered of 2,800/s, 68 % hits", "/s", "sent", 0.99, at_least=True).add(
            fast.streams[0].figures["answered_per_s"], fast.streams[0].figures["offered_per_s"]
        )
        table.row("memory when ready", "MB", "", 180.0).add(*ready)
        table.row("memory after that", "MB", "when ready", 1.15).add(
            fast.figures["memory_mb"], *ready
        )


_PARTS: dict[str, Callable[[_Given, Table], None]] = {
    "engine": _engine,
    "hits": _hits,
    "large": _large,
    "mixed": _mixed,
}


@click.command()
@smoke_flag(exposed=True, rounds=1, count=16, calls=1, seconds=1)
@click.argument("files", nargs=-1, type=click.Path(exists=True, path_type=Path))
@model_flags
@click.option("--redis", "redis_url", help="also measure exact hits in this Redis")
@click.option("--rounds", default=5, show_default=True)
@click.option("--texts", "count", default=800, show_default=True, help="texts embedded offline")
@click.option("--calls", default=50, show_default=True, help="most calls for each batch")
@click.option("--seconds", default=4, show_default=True, help="of each load, and of each phase")
@click.option("--part", "parts", multiple=True, type=click.Choice([*_PARTS]), help="[all]")
def main(
    files: tuple[Path, ...],
    model: str,
    home: Path | None,
    redis_url: str | None,
    rounds: int,
    count: int,
    calls: int,
    seconds: int,
    parts: tuple[str, ...],
    smoke: bool,
) -> None:
    """All of it in one table, with goals.

    FILES are JSONL with texts in a field text, query, a, or prompt. Without files, the calibration
    texts of the package are embedded, over and over.
    """
    settings = settings_of(home)
    given = _Given(settings, model, files, redis_url, rounds, count, calls, seconds, smoke)
    table = Table()
    click.echo(
        f"{cpu_name()}, {settings.batch.threads} cores ({isa_class()}), "
        f"Python {platform.python_version()}, ONNX Runtime {onnxruntime.__version__}; "
        f"{model}, medians of {rounds} rounds\n"
    )
    for part in parts or _PARTS:
        _PARTS[part](given, table)
        table.show()  # a part takes minutes


def cpu_name() -> str:
    """Return the name of this machine's CPU, or of its architecture."""
    if _CPUINFO.exists():
        for line in _CPUINFO.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _run(
    given: _Given, scenario: Scenario, ready_mb: list[float] | None = None
) -> list[PhaseResult]:
    """Return the phases of a scenario on a server of its own; `ready_mb` gets its memory before.

    Raises:
        LoadTestError: the server does not become ready, or a process that sends failed.
        NotAnswered: an answer was not 2xx where it had to be.
    """
    scenario = scenario.as_smoke_test() if given.is_smoke else scenario.with_seconds(given.seconds)
    with Served(given.settings.home, given.model, scenario.flags) as served:
        if ready_mb is not None:
            ready_mb.append(scrape(served.url).value("process_resident_memory_bytes") / 1e6)
        target = Target(served.url, given.model)
        assignment = Assignment(scenario, target, tuple(map(str, given.files)))
        result = run("speed", assignment, 1, served)
    if result.failures:
        raise NotAnswered("; ".join(result.failures))
    return result.phases
