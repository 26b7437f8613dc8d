"""Latency against rate over all phases: what was offered, what was sustained, where it bends."""

from collections.abc import Sequence
from dataclasses import dataclass

from .result import PhaseResult, Result, StreamResult

_SUSTAINED_SHARE = 0.95
_MOST_LOST_SHARE = 0.01
"""A phase sustained its rate if it answered this share of it and lost no more than that one."""

_BEND = 2.0
"""The curve bends where P99 is this many times the lowest P99 at lower rates."""

_SAME_RATE = 1.1
"""Rates whose ratio is smaller are one rate."""


@dataclass(frozen=True)
class Point:
    """One stream in one phase.

    Attributes:
        phase: name.
        stream: name.
        offered_per_s: requests a second of all streams of the phase.
        answered_per_s: the same, answered with 200.
        p50_ms: of the stream.
        p99_ms: of the stream.
        broken: what the phase broke, in words.
    """

    phase: str
    stream: str
    offered_per_s: float
    answered_per_s: float
    p50_ms: float
    p99_ms: float
    broken: tuple[str, ...]


@dataclass(frozen=True)
class Bend:
    """The two rates of a stream between which its P99 leaves the level of lower rates."""

    stream: str
    below: Point
    above: Point


def points_of(result: Result) -> list[Point]:
    """Return a point for each stream with answers, in the order of the phases.

    Closed loops are left out: their rate follows from the latency, not the other way round.
    """
    return [
        Point(
            phase.name,
            stream.name,
            _total(phase, "offered_per_s"),
            _total(phase, "answered_per_s"),
            stream.figures["p50_ms"],
            stream.figures["p99_ms"],
            tuple(broken_of(result, phase.name)),
        )
        for phase in result.phases
        for stream in phase.streams
        if stream.figures["p99_ms"] and not stream.clients
    ]


def broken_of(result: Result, phase: str) -> list[str]:
    """Return what a phase, or a trial of a search, broke, in words."""
    trials = result.limit.trials if result.limit else []
    return [
        *(kept.promise for kept in result.promises if kept.phase == phase and not kept.is_kept),
        *(broken for trial in trials if trial.phase == phase for broken in trial.broken),
    ]


def sustained(result: Result) -> PhaseResult | None:
    """Return the phase with the highest rate that was answered nearly whole, or None."""
    held = [phase for phase in result.phases if all(map(_is_held, phase.streams))]
    return max(held, key=lambda phase: _total(phase, "answered_per_s"), default=None)


def answered_per_s(phase: PhaseResult) -> float:
    """Return the answers a second of all streams of a phase."""
    return _total(phase, "answered_per_s")


def find_bends(points: Sequence[Point]) -> list[Bend]:
    """Return where the P99 of each stream bends; streams that do not bend are left out."""
    bends = []
    for stream in dict.fromkeys(point.stream for point in points):
        mine = [point for point in points if point.stream == stream]
        mine.sort(key=lambda point: point.offered_per_s)
        for index, above in enumerate(mine):
            lower = [one for one in mine[:index] if _is_lower(one, above)]
            if lower and above.p99_ms > _BEND * min(one.p99_ms for one in lower):
                bends.append(Bend(stream, lower[-1], above))
                break
    return bends


def _is_lower(one: Point, other: Point) -> bool:
    return one.offered_per_s * _SAME_RATE < other.offered_per_s


def _is_held(stream: StreamResult) -> bool:
    figures = stream.figures
    share = figures["answered_per_s"] / max(figures["offered_per_s"], 1e-9)
    lost = figures["refused_share"] + figures["failed_share"]
    return share >= _SUSTAINED_SHARE and lost <= _MOST_LOST_SHARE


def _total(phase: PhaseResult, figure: str) -> float:
    return sum(stream.figures[figure] for stream in phase.streams)
