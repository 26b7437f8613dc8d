"""Renders two runs, drawn over each other, as one self-contained page."""

from collections import Counter
from collections.abc import Iterator, Sequence
from html import escape

from .compare import Ratio, find_ratios, pairs_of
from .curve import points_of
from .layout import Line, Page, Plot
from .plots import answered, curve_plot, hit_shares, quantiles_ms, rates_per_s, times_of
from .result import PhaseResult, Result, StreamResult
from .summary import describe_sender, warnings_of

_COLOURS = {"A": "#3d7fd0", "B": "#d9932b"}

Values = Sequence[float | None]


def as_comparison(a: Result, b: Result) -> str:
    """Return the page."""
    runs = (("A", a), ("B", b))
    about = [f"{name}: {run.scenario}. {describe_sender(run)}" for name, run in runs]
    page = Page("Load tests compared: B to A", about)
    ratios = find_ratios(a, b)
    page.tiles(_tiles(ratios))
    page.add("<div class=first><div class=card>")
    page.plot(curve_plot([("A", points_of(a)), ("B", points_of(b))]), large=True)
    for name, run in runs:
        troubles = [*run.failures, *run.differences]
        page.items([f"{name}: {trouble}" for trouble in troubles], "broken")
        page.items([f"{name}: {warning}" for warning in warnings_of(run)])
    page.add("</div><div class=card>")
    page.table(*_matrix(ratios))
    page.add("<p>B / A; * where its 95 % interval leaves out 1</p>")
    page.add("</div></div><h2>Over time <small>drag across a plot to zoom</small></h2>")
    page.key(_COLOURS.items(), "latency: median solid, P99 dashed; plots of a kind have one scale")
    for one, other in pairs_of(a, b):
        page.add(f"<h2>{escape(one[0].name)} <small>{escape(one[1].name)}</small></h2>")
        page.add("<div class=row>")
        for plot in _plots(one, other):
            page.plot(plot)
        page.add("</div>")
    page.add("<h2>All ratios</h2><details><summary>with their intervals</summary>")
    page.table(
        ("phase", "stream", "figure", "A", "B", "B / A", "95 % interval"),
        [
            (one.phase, one.stream, one.figure, f"{one.a:.4g}", f"{one.b:.4g}", f"{one.ratio:.3f}",
             f"{one.low:.3f} to {one.high:.3f}")
            for one in ratios
        ],
    )  # fmt: skip
    page.add("</details>")
    return page.render()


def _tiles(ratios: Sequence[Ratio]) -> Iterator[tuple[str, str, str, str]]:
    for figure in dict.fromkeys(one.figure for one in ratios):
        mine = [one for one in ratios if one.figure == figure]
        most = max(mine, key=lambda one: abs(one.ratio - 1))
        counts = Counter(_verdict(one) for one in mine)
        said = ", ".join(f"{what} in {count}" for what, count in counts.items())
        note = f"farthest from 1, in {most.phase}; {said}"
        yield f"{figure}, B / A", f"{most.ratio:.3g}", note, ""


def _matrix(ratios: Sequence[Ratio]) -> tuple[list[str], list[list[str]]]:
    """Return the ratios with a row for each stream of a phase, and a column for each figure."""
    figures = list(dict.fromkeys(one.figure for one in ratios))
    found = {(one.phase, one.stream, one.figure): one for one in ratios}
    rows = [
        [
            f"{phase}: {stream}",
            *(_cell(found.get((phase, stream, figure))) for figure in figures),
        ]
        for phase, stream in dict.fromkeys((one.phase, one.stream) for one in ratios)
    ]
    return ["phase: stream", *figures], rows


def _cell(ratio: Ratio | None) -> str:
    return "" if ratio is None else f"{ratio.ratio:.3f}{'*' if ratio.is_clear else ' '}"


def _verdict(ratio: Ratio) -> str:
    if not ratio.is_clear:
        return "no difference"
    return "higher" if ratio.ratio > 1 else "lower"


def _plots(
    one: tuple[PhaseResult, StreamResult], other: tuple[PhaseResult, StreamResult]
) -> Iterator[Plot]:
    runs = {"A": one, "B": other}
    at_s = {name: times_of(*run) for name, run in runs.items()}
    x = sorted({moment for moments in at_s.values() for moment in moments})

    def line(name: str, label: str, values: Values, *, dashed: bool = False) -> Line:
        found = dict(zip(at_s[name], values, strict=True))
        return Line(f"{name}{label}", _COLOURS[name], [found.get(moment) for moment in x], dashed)

    latency, throughput, hits = [], [], []
    for name, (phase, stream) in runs.items():
        windows = answered(stream)
        if not windows:
            continue
        for share in (50, 99):
            values = quantiles_ms(windows, share)
            latency.append(line(name, f", p{share}", values, dashed=share == 99))
        throughput.append(line(name, "", rates_per_s(phase, windows)))
        hits.append(line(name, "", hit_shares(stream)))
    yield Plot("latency, ms", "seconds", x, latency, "latency", log=True)
    yield Plot("answers/s", "seconds", x, throughput, "throughput")
    yield Plot("hit rate", "seconds", x, hits, "hits")
    server = [(name, phase.server) for name, (phase, _) in runs.items() if phase.server]
    if server:
        moments = sorted({moment.at_s for _, found in server for moment in found})
        memory = []
        for name, found in server:
            by_time = {moment.at_s: moment.memory_bytes / 1e6 for moment in found}
            values = [by_time.get(moment) for moment in moments]
            memory.append(Line(name, _COLOURS[name], values))
        yield Plot("server: memory, MB", "seconds", moments, memory, "memory")
