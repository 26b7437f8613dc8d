"""The plots of a result: the curve over all phases, and those of one phase over time."""

from collections.abc import Sequence

from hdrh.histogram import HdrHistogram

from ..soak.vitals import Vital
from .curve import Point
from .layout import Line, Plot
from .result import REFUSED, Latencies, PhaseResult, StreamResult, make_histogram

COLOURS = {
    "hot": "#d4522f",
    "exact": "#d9932b",
    "semantic": "#a05bd0",
    "hit": "#d9932b",
    "miss": "#3d7fd0",
    "mixed": "#2a9d7c",
    "bypass": "#7d8896",
    "none": "#7d8896",
    REFUSED: "#c2456f",
}
HITS = ("hot", "exact", "semantic", "hit")
BROKEN = "#d0342c"
_STREAMS = ("#3d7fd0", "#d9932b", "#2a9d7c", "#a05bd0", "#c2456f", "#7d8896")
_ONE = "#3d7fd0"


def curve_plot(runs: Sequence[tuple[str, Sequence[Point]]]) -> Plot:
    """Return latency against rate over all phases, of one run ("") or of several by name."""
    everything = [point for _, points in runs for point in points]
    rates = sorted({point.offered_per_s for point in everything})
    lines = []
    names = [
        (run, stream, points)
        for run, points in runs
        for stream in dict.fromkeys(point.stream for point in points)
    ]
    for number, (run, stream, points) in enumerate(names):
        mine = [point for point in points if point.stream == stream]
        colour = _STREAMS[number % len(_STREAMS)]
        label = f"{run}: {stream}" if run else stream
        for name, value, dashed in (("P99", _p99, False), ("P50", _p50, True)):
            by_rate = {point.offered_per_s: value(point) for point in mine}
            values = [by_rate.get(rate) for rate in rates]
            lines.append(Line(f"{label}, {name}", colour, values, dashed, points=True))
    broken = {point.offered_per_s: point.p99_ms for point in everything if point.broken}
    if broken:
        values = [broken.get(rate) for rate in rates]
        lines.append(Line("promise broken", BROKEN, values, points=True, alone=True))
    return Plot("Latency against rate, ms", "requests/s offered", rates, lines, "curve", log=True)


def _p99(point: Point) -> float:
    return point.p99_ms


def _p50(point: Point) -> float:
    return point.p50_ms


def stream_plots(phase: PhaseResult, stream: StreamResult) -> list[Plot]:
    """Return latency, throughput and hit rate of a stream over time, by tier."""
    decoded = {one.tier: decode(one) for one in stream.latencies}
    if not decoded:
        return []
    at_s = times_of(phase, stream)
    latency = [
        Line(f"{tier}, p{share}", COLOURS[tier], quantiles_ms(windows, share), dashed=share == 99)
        for tier, windows in decoded.items()
        for share in (50, 99)
    ]
    throughput = [
        Line(tier, COLOURS[tier], rates_per_s(phase, windows)) for tier, windows in decoded.items()
    ]
    plots = [
        Plot(f"{stream.name}: latency, ms", "seconds", at_s, latency, "latency", log=True),
        Plot(f"{stream.name}: answers/s", "seconds", at_s, throughput, "throughput"),
    ]
    if set(decoded) & set(HITS):
        hits = Line("hits", COLOURS["semantic"], hit_shares(stream))
        plots.append(Plot(f"{stream.name}: hit rate", "seconds", at_s, [hits], "hits"))
    return plots


def server_plots(phase: PhaseResult) -> list[Plot]:
    """Return the server's memory, queue and error bound over time."""
    if not phase.server:
        return []
    at_s = [moment.at_s for moment in phase.server]

    def plot(title: str, group: str, values: Sequence[float | None]) -> Plot:
        return Plot(title, "seconds", at_s, [Line(group, _ONE, values)], group)

    memory = [moment.memory_bytes / 1e6 for moment in phase.server]
    plots = [
        plot("server: queue, texts", "queue", [moment.queue_texts for moment in phase.server]),
        plot("server: memory, MB", "memory", memory),
    ]
    bounds = [moment.error_bound for moment in phase.server]
    if any(bound is not None for bound in bounds):
        plots.append(plot("semantic hits: error bound", "bound", bounds))
    return plots


def vital_plots(vitals: Sequence[Vital]) -> list[Plot]:
    """Return what the server's processes held over the whole run, and the size of its store."""
    if len(vitals) < 2:
        return []
    at_s = [one.at_s for one in vitals]
    pids = list(dict.fromkeys(pid for one in vitals for pid in one.memory_bytes))

    def lines(values: Sequence[dict[str, int]], unit: float = 1) -> list[Line]:
        return [
            Line(
                f"process {pid}",
                _STREAMS[number % len(_STREAMS)],
                [one[pid] / unit if pid in one else None for one in values],
            )
            for number, pid in enumerate(pids)
        ]

    store = [one.store_bytes / 1e6 for one in vitals]
    return [
        Plot(
            "memory, MB",
            "seconds",
            at_s,
            lines([one.memory_bytes for one in vitals], 1e6),
            "run: memory",
        ),
        Plot("handles", "seconds", at_s, lines([one.handles for one in vitals]), "run: handles"),
        Plot("threads", "seconds", at_s, lines([one.threads for one in vitals]), "run: threads"),
        Plot("store, MB", "seconds", at_s, [Line("files", _ONE, store)], "run: store"),
    ]


def decode(latencies: Latencies) -> list[HdrHistogram]:
    """Return the histogram of each time window, in microseconds."""
    return [HdrHistogram.decode(encoded) for encoded in latencies.windows]


def answered(stream: StreamResult) -> list[HdrHistogram]:
    """Return the answers of all tiers by time window, refusals left out."""
    tiers = [decode(one) for one in stream.latencies if one.tier != REFUSED]
    merged = []
    for windows in zip(*tiers, strict=True):
        total = make_histogram()
        for window in windows:
            total.add(window)
        merged.append(total)
    return merged


def times_of(phase: PhaseResult, stream: StreamResult) -> list[float]:
    """Return the middle of each time window, in seconds from the start of the phase."""
    count = max((len(one.windows) for one in stream.latencies), default=0)
    return [phase.window_s * (number + 0.5) for number in range(count)]


def quantiles_ms(windows: Sequence[HdrHistogram], share: float) -> list[float | None]:
    """Return a percentile of each window in milliseconds, None where nothing was answered."""
    return [
        one.get_value_at_percentile(share) / 1000 if one.total_count else None for one in windows
    ]


def rates_per_s(phase: PhaseResult, windows: Sequence[HdrHistogram]) -> list[float | None]:
    """Return the answers a second of each window."""
    return [one.total_count / phase.window_s for one in windows]


def hit_shares(stream: StreamResult) -> list[float | None]:
    """Return the share of answers that hit in each window, None where nothing was answered."""
    total = [one.total_count for one in answered(stream)]
    hits = [0] * len(total)
    for latencies in stream.latencies:
        if latencies.tier in HITS:
            counts = [one.total_count for one in decode(latencies)]
            hits = [before + more for before, more in zip(hits, counts, strict=True)]
    return [hit / answers if answers else None for hit, answers in zip(hits, total, strict=True)]
