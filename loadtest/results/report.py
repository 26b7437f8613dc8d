"""Renders a run as one self-contained page.

Its first screen answers what was offered, what was sustained, where it bends, which promises were
kept, and what to beware of. Plots of every phase follow, and all figures as tables.
"""

from collections.abc import Iterator
from html import escape

from .curve import Point, answered_per_s, broken_of, find_bends, points_of, sustained
from .layout import Page
from .plots import COLOURS, curve_plot, server_plots, stream_plots, vital_plots
from .result import PhaseResult, Result, StreamResult
from .summary import describe_limit, describe_sender, warnings_of

Tile = tuple[str, str, str, str]

_HEADS = ("phase", "offered/s", "answered/s", "P50 ms", "P99 ms", "hits", "refused", "failed")


def as_html(result: Result) -> str:
    """Return the page."""
    page = Page(f"Load test: {result.scenario}", [result.about, describe_sender(result)])
    _first_screen(page, result)
    page.add("<h2>Over time <small>drag across a plot to zoom, click on its title</small></h2>")
    tiers = {one.tier for phase in result.phases for stream in phase.streams
             for one in stream.latencies}  # fmt: skip
    page.key(
        [(tier, colour) for tier, colour in COLOURS.items() if tier in tiers],
        "latency: median solid, P99 dashed; plots of a kind have one scale",
    )
    if plots := vital_plots(result.vitals):
        page.add("<h2>The server's processes <small>over the whole run</small></h2><div class=row>")
        for plot in plots:
            page.plot(plot)
        page.add("</div>")
    for phase in result.phases:
        _plots(page, phase)
    page.add("<h2>All figures</h2>")
    for phase in result.phases:
        _details(page, phase)
    return page.render()


def _first_screen(page: Page, result: Result) -> None:
    page.tiles(_tiles(result))
    page.add("<div class=first><div class=card>")
    points = points_of(result)
    if points:
        page.plot(curve_plot([("", points)]), large=True)
    broken = [kept for kept in result.promises if not kept.is_kept]
    page.items([*result.failures, *result.differences], "broken")
    page.items(warnings_of(result))
    page.add("</div><div class=card>")
    rows = [(phase, stream) for phase in result.phases for stream in phase.streams]
    page.table(
        _HEADS,
        [_row(phase, stream) for phase, stream in rows],
        [number for number, (phase, _) in enumerate(rows) if broken_of(result, phase.name)],
    )
    if result.promises:
        page.table(
            ("promise", "found", "limit", ""),
            [
                (kept.promise, f"{kept.value:.4g}", f"{kept.limit:.4g}",
                 "kept" if kept.is_kept else "broken")
                for kept in result.promises
            ],
            [number for number, kept in enumerate(result.promises) if kept in broken],
        )  # fmt: skip
    page.add("</div></div>")


def _row(phase: PhaseResult, stream: StreamResult) -> tuple[str, ...]:
    figures = stream.figures
    name = phase.name if len(phase.streams) == 1 else f"{phase.name}: {stream.name}"
    return (
        name,
        *(f"{figures[one]:,.1f}" for one in ("offered_per_s", "answered_per_s")),
        *(f"{figures[one]:.2f}" for one in ("p50_ms", "p99_ms")),
        *(f"{figures[one]:.1%}" for one in ("hit_share", "refused_share", "failed_share")),
    )


def _tiles(result: Result) -> Iterator[Tile]:
    offered = [
        sum(stream.figures["offered_per_s"] for stream in phase.streams) for phase in result.phases
    ]
    if offered:
        span = f"{min(offered):,.0f} to {max(offered):,.0f}/s"
        if len(offered) == 1:
            span = f"{offered[0]:,.0f}/s"
        yield "Offered", span, f"{len(offered)} phase{'s' * (len(offered) > 1)}", ""
    yield _limit_tile(result) if result.limit else _sustained_tile(result)
    yield _bend_tile(result)
    if result.limit is None:
        yield _promises_tile(result)
    yield _trust_tile(result)


def _sustained_tile(result: Result) -> Tile:
    best = sustained(result)
    if best is None:
        return "Sustained", "no phase", "each answered less than 95 % or lost over 1 %", "bad"
    clients = sum(stream.clients for stream in best.streams)
    waiting = f", {clients} clients that wait" if clients else ""
    return "Sustained", f"{answered_per_s(best):,.0f}/s", f"in {best.name}{waiting}", ""


def _limit_tile(result: Result) -> Tile:
    limit = result.limit
    if limit is None or limit.per_s is None or limit.high_per_s is None:
        return "Limit", "not reached", describe_limit(result), "warn"
    interval = f"95 % interval {limit.low_per_s:,.4g} to {limit.high_per_s:,.4g}/s"
    note = f"{interval}, {len(limit.trials)} trials"
    return "Limit", f"{limit.per_s:,.4g}/s", note, "" if limit.is_precise else "warn"


def _bend_tile(result: Result) -> Tile:
    bends = find_bends(points_of(result))
    if not bends:
        return "Bends", "nowhere", "no P99 doubled over that at a lower rate", ""
    bend = min(bends, key=lambda one: one.above.offered_per_s)
    span = f"{bend.below.offered_per_s:,.0f} to {bend.above.offered_per_s:,.0f}/s"
    note = f"{bend.stream}: P99 {_ms(bend.below)} to {_ms(bend.above)}"
    return "Bends", span, note, ""


def _ms(point: Point) -> str:
    return f"{point.p99_ms:,.0f} ms" if point.p99_ms >= 100 else f"{point.p99_ms:.3g} ms"


def _promises_tile(result: Result) -> Tile:
    broken = [kept for kept in result.promises if not kept.is_kept]
    if not result.promises:
        return "Promises", "none", "the scenario makes none", ""
    if not broken:
        return "Promises", f"{len(result.promises)} kept", "", "good"
    return "Promises", f"{len(broken)} broken", f"of {len(result.promises)}", "bad"


def _trust_tile(result: Result) -> Tile:
    counts = sum(len(phase.counts) for phase in result.phases)
    if result.failures or result.differences:
        troubles = len(result.failures) + len(result.differences)
        return "Checks", f"{troubles} failed", "answers or counts, listed below", "bad"
    agree = f"clients and server agree in {counts} counts"
    said = agree if counts else "the server has no metrics to compare with"
    if warnings := warnings_of(result):
        return "Checks", f"{len(warnings)} warning{'s' * (len(warnings) > 1)}", said, "warn"
    return "Checks", "no warning", said, "good" if counts else ""


def _plots(page: Page, phase: PhaseResult) -> None:
    page.add(f"<h2>{escape(phase.name)} <small>{phase.seconds:g} s</small></h2><div class=row>")
    for stream in phase.streams:
        for plot in stream_plots(phase, stream):
            page.plot(plot)
    for plot in server_plots(phase):
        page.plot(plot)
    page.add("</div>")


def _details(page: Page, phase: PhaseResult) -> None:
    page.add(f"<details><summary>{escape(phase.name)}</summary>")
    names = list(dict.fromkeys(name for stream in phase.streams for name in stream.figures))
    page.table(
        ("figure", *(stream.name for stream in phase.streams)),
        [
            (name, *(_number(stream.figures.get(name)) for stream in phase.streams))
            for name in names
        ],
    )
    page.table(
        ("of the phase", ""), [(name, _number(value)) for name, value in phase.figures.items()]
    )
    for stream in phase.streams:
        tiers = sorted({tier for found in stream.kinds.values() for tier in found})
        if tiers:
            page.table(
                (f"{stream.name}: texts", "sent", *tiers),
                [
                    (kind, f"{sent:,}",
                     *(f"{stream.kinds.get(kind, {}).get(tier, 0):,}" for tier in tiers))
                    for kind, sent in stream.expected.items()
                ],
            )  # fmt: skip
    if phase.counts:
        page.table(
            ("count", "clients", "server"),
            [(count.what, f"{count.client:,}", f"{count.server:,}") for count in phase.counts],
            [number for number, count in enumerate(phase.counts) if not count.agrees],
        )
    page.add("</details>")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.5g}"
