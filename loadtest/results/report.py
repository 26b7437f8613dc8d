"""Renders a run as one self-contained HTML page with tables and plots."""

import html
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from hdrh.histogram import HdrHistogram

from cacheproxy.errors import ConfigError
from cacheproxy.evaluation.page import as_svg, make_page

from .result import REFUSED, Latencies, PhaseResult, Result, StreamResult
from .summary import describe_sender, warnings_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = {
    "hot": "#c2452d",
    "exact": "#d9892b",
    "semantic": "#2a7f62",
    "hit": "#d9892b",
    "miss": "#1f5fa8",
    "mixed": "#7b4fa3",
    "bypass": "#5d6b7a",
    "none": "#1c2430",
    REFUSED: "#8a94a3",
}
_HITS = ("hot", "exact", "semantic", "hit")
_SHOWN = ("offered_per_s", "answered_per_s", "texts_per_s", "p50_ms", "p90_ms", "p99_ms", "p999_ms")
_SHARES = ("hit_share", "refused_share", "failed_share")


def as_html(result: Result) -> str:
    """Return the page.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    parts = [
        f"<p>{html.escape(result.about)}",
        f"<p>{html.escape(describe_sender(result))}",
        *_checks(result),
    ]
    for phase in result.phases:
        parts += _phase(phase)
    return make_page(f"Load test: {result.scenario}", "\n".join(parts))


def _checks(result: Result) -> Iterator[str]:
    troubles = [*result.failures, *result.differences, *warnings_of(result)]
    if troubles:
        items = "".join(f"<li>{html.escape(trouble)}" for trouble in troubles)
        yield f"<ul class=broken>{items}</ul>"
    counts = sum(len(phase.counts) for phase in result.phases)
    if counts and not result.differences:
        yield f"<p>Truth check: clients and server agree in all {counts} counts."
    if result.promises:
        yield "<table><tr><th>promise<th>found<th>limit"
        for kept in result.promises:
            broken = "" if kept.is_kept else " class=broken"
            promise = html.escape(kept.promise)
            yield f"<tr{broken}><td>{promise}<td>{kept.value:.4g}<td>{kept.limit:.4g}"
        yield "</table>"


def _phase(phase: PhaseResult) -> Iterator[str]:
    yield f"<h2>{html.escape(phase.name)}, {phase.seconds:g} s</h2>"
    heads = "".join(f"<th>{name.replace('_', ' ')}" for name in (*_SHOWN, *_SHARES))
    yield f"<table><tr><th>stream{heads}"
    for stream in phase.streams:
        numbers = "".join(f"<td>{stream.figures[name]:.2f}" for name in _SHOWN)
        shares = "".join(f"<td>{stream.figures[name]:.1%}" for name in _SHARES)
        yield f"<tr><td>{html.escape(stream.name)}{numbers}{shares}"
    yield "</table>"
    yield f"<p>Requests left up to {phase.figures['lag_p99_ms']:.2f} ms late (p99)."
    for stream in phase.streams:
        yield from _kinds(stream)
        yield from _stream_plots(phase, stream)
    if phase.server:
        yield from _server_plots(phase)


def _kinds(stream: StreamResult) -> Iterator[str]:
    tiers = sorted({tier for found in stream.kinds.values() for tier in found})
    if not tiers:
        return
    yield f"<table><tr><th>{html.escape(stream.name)}: texts<th>sent"
    yield "".join(f"<th>{tier}" for tier in tiers)
    for kind, sent in stream.expected.items():
        found = stream.kinds.get(kind, {})
        numbers = "".join(f"<td>{found.get(tier, 0):,}" for tier in tiers)
        yield f"<tr><td>{kind}<td>{sent:,}{numbers}"
    yield "</table>"


def _stream_plots(phase: PhaseResult, stream: StreamResult) -> Iterator[str]:
    decoded = {one.tier: _decode(one) for one in stream.latencies}
    if not decoded:
        return
    at_s = phase.window_s * (np.arange(max(map(len, decoded.values()))) + 0.5)

    def latency(axes: "Axes") -> None:
        for tier, windows in decoded.items():
            for share, line in ((50, "-"), (99, ":")):
                values = [
                    one.get_value_at_percentile(share) / 1000 if one.total_count else np.nan
                    for one in windows
                ]
                label = f"{tier}, p{share}"
                axes.plot(at_s, values, line, color=_COLOURS[tier], label=label)
        axes.set_yscale("log")
        axes.legend(fontsize=8, ncols=2)

    def throughput(axes: "Axes") -> None:
        for tier, windows in decoded.items():
            rate = [one.total_count / phase.window_s for one in windows]
            axes.plot(at_s, rate, color=_COLOURS[tier], label=tier)
        axes.set_ylim(bottom=0)
        axes.legend(fontsize=8)

    def hits(axes: "Axes") -> None:
        counts = {
            tier: np.array([one.total_count for one in windows])
            for tier, windows in decoded.items()
            if tier != REFUSED
        }
        total = sum(counts.values(), np.zeros(len(at_s)))
        hit = sum((counts[tier] for tier in _HITS if tier in counts), np.zeros(len(at_s)))
        axes.plot(at_s, hit / np.maximum(total, 1), color=_COLOURS["semantic"])
        axes.set_ylim(0, 1)

    yield _draw(f"{stream.name}: latency by tier", "ms from when it was due", latency)
    yield _draw(f"{stream.name}: throughput by tier", "answers/s", throughput)
    if set(decoded) & set(_HITS):
        yield _draw(f"{stream.name}: hit rate", "share of answers that hit", hits)


def _server_plots(phase: PhaseResult) -> Iterator[str]:
    at_s = [moment.at_s for moment in phase.server]

    def line(values: Sequence[float | None]) -> Any:
        def draw(axes: "Axes") -> None:
            numbers = [np.nan if value is None else value for value in values]
            axes.plot(at_s, numbers, color=_COLOURS["miss"])
            axes.set_ylim(bottom=0)

        return draw

    memory = [moment.memory_bytes / 1e6 for moment in phase.server]
    yield _draw("Server: memory", "MB", line(memory))
    yield _draw("Server: queue", "texts", line([moment.queue_texts for moment in phase.server]))
    bounds = [moment.error_bound for moment in phase.server]
    if any(bound is not None for bound in bounds):
        yield _draw("Semantic hits: error bound", "P(wrong | hit) at most", line(bounds))


def _decode(latencies: Latencies) -> list[HdrHistogram]:
    return [HdrHistogram.decode(encoded) for encoded in latencies.windows]


def _draw(title: str, y: str, plot: Any) -> str:
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise ConfigError("--report needs matplotlib: pip install 'cacheproxy[loadtest]'") from None
    figure = Figure(figsize=(8, 3), layout="constrained")
    axes = figure.subplots()
    plot(axes)
    axes.set(title=title, xlabel="seconds", ylabel=y)
    return as_svg(figure)
