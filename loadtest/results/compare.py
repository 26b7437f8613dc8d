"""Compares two results: the ratio of every figure, and its spread.

The spread is a bootstrap: time windows are resampled from each run a thousand times, and the middle
95 % of the ratios are shown. It covers what varies within a run. What varies between runs, such as
the load of a shared machine, only further runs show.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from hdrh.histogram import HdrHistogram
from numpy.typing import NDArray

from .result import REFUSED, PhaseResult, Result, StreamResult, make_histogram

_DRAWS = 1_000
_SPREAD = (0.025, 0.975)
_SEED = 1

Weights = NDArray[np.float64]
Figure = Callable[["_Windows", Weights], float]


@dataclass(frozen=True)
class Ratio:
    """The ratio of a figure, B to A, with the limits of its 95 % interval."""

    phase: str
    stream: str
    figure: str
    a: float
    b: float
    ratio: float
    low: float
    high: float

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves out 1."""
        return not self.low <= 1 <= self.high


@dataclass(frozen=True)
class _Windows:
    """The answers of a stream: float64 counts [windows, buckets], and the buckets' milliseconds."""

    counts: NDArray[np.float64]
    hits: NDArray[np.float64]
    values_ms: NDArray[np.float64]
    window_s: float

    def per_s(self, weights: Weights) -> float:
        return float(weights @ self.counts.sum(axis=1)) / float(weights.sum() * self.window_s)

    def hit_share(self, weights: Weights) -> float:
        answers = float(weights @ self.counts.sum(axis=1))
        return float(weights @ self.hits) / answers if answers else 0.0

    def quantile_ms(self, weights: Weights, share: float) -> float:
        total = np.cumsum(weights @ self.counts)
        if not total[-1]:
            return 0.0
        return float(self.values_ms[np.searchsorted(total, share * total[-1])])


_FIGURES: dict[str, Figure] = {
    "answers/s": _Windows.per_s,
    "p50 ms": lambda windows, weights: windows.quantile_ms(weights, 0.5),
    "p99 ms": lambda windows, weights: windows.quantile_ms(weights, 0.99),
    "answers that hit": _Windows.hit_share,
}


def find_ratios(a: Result, b: Result) -> list[Ratio]:
    """Return the ratios of all phases and streams that both results have."""
    rng = np.random.default_rng(_SEED)
    return [ratio for one, other in pairs_of(a, b) for ratio in _ratios(*one, *other, rng)]


def compare_results(a: Result, b: Result) -> str:
    """Return the ratios as a table."""
    lines = [
        f"A: {a.scenario} on {a.server}",
        f"B: {b.scenario} on {b.server}",
        f"{'phase':16}{'stream':16}{'figure':18}{'A':>11}{'B':>11}{'B / A':>9}  95 % interval",
    ]
    lines += [
        f"{found.phase:16}{found.stream:16}{found.figure:18}{found.a:11.4g}{found.b:11.4g}"
        f"{found.ratio:9.3f}  {found.low:.3f} to {found.high:.3f}"
        for found in find_ratios(a, b)
    ]
    return "\n".join(lines)


def pairs_of(
    a: Result, b: Result
) -> Iterator[tuple[tuple[PhaseResult, StreamResult], tuple[PhaseResult, StreamResult]]]:
    """Yield each phase with a stream that both results have, of A and of B."""
    others = {(phase.name, stream.name): (phase, stream) for phase, stream in _streams(b)}
    for phase, stream in _streams(a):
        if (phase.name, stream.name) in others:
            yield (phase, stream), others[phase.name, stream.name]


def _streams(result: Result) -> Iterator[tuple[PhaseResult, StreamResult]]:
    for phase in result.phases:
        for stream in phase.streams:
            yield phase, stream


def _ratios(
    phase: PhaseResult,
    stream: StreamResult,
    other_phase: PhaseResult,
    other: StreamResult,
    rng: np.random.Generator,
) -> Iterator[Ratio]:
    a, b = _windows(phase, stream), _windows(other_phase, other)
    draws = [(_draw(a, rng), _draw(b, rng)) for _ in range(_DRAWS)]
    for name, figure in _FIGURES.items():
        one, two = figure(a, _all(a)), figure(b, _all(b))
        if not one:
            continue
        found = [figure(b, of_b) / value for of_a, of_b in draws if (value := figure(a, of_a))] or [
            two / one
        ]
        low, high = np.quantile(found, _SPREAD)
        yield Ratio(phase.name, stream.name, name, one, two, two / one, float(low), float(high))


def _all(windows: _Windows) -> Weights:
    return np.ones(len(windows.counts))


def _draw(windows: _Windows, rng: np.random.Generator) -> Weights:
    count = len(windows.counts)
    return rng.multinomial(count, np.full(count, 1 / count)).astype(np.float64)


def _windows(phase: PhaseResult, stream: StreamResult) -> _Windows:
    answered = [latencies for latencies in stream.latencies if latencies.tier != REFUSED]
    count = max((len(latencies.windows) for latencies in answered), default=1)
    empty = make_histogram()
    total, hits = np.zeros((count, empty.counts_len)), np.zeros(count)
    for latencies in answered:
        for number, encoded in enumerate(latencies.windows):
            counts = np.array(HdrHistogram.decode(encoded).counts[:], np.float64)
            total[number] += counts
            if latencies.tier in ("hot", "exact", "semantic", "hit"):
                hits[number] += counts.sum()
    # Empty buckets would only cost time.
    used = np.flatnonzero(total.sum(axis=0))
    values = [empty.get_value_from_index(int(index)) / 1000 for index in used]
    return _Windows(total[:, used], hits, np.array(values), phase.window_s)
