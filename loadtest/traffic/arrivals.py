"""When requests are sent: arrival times in seconds from the start of a phase, drawn beforehand."""

import csv
import gzip
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cacheproxy.errors import ConfigError

from .scenario import Stream

Times = NDArray[np.float64]

_EARLIER_GAPS = 20.0
"""Mean gaps, times the squared coefficient of variation, before a gamma process is watched."""


def draw_arrivals(
    stream: Stream, seconds: float, capacity_per_s: float | None, rng: np.random.Generator
) -> Times:
    """Return the arrival times of an open-loop stream, in order.

    Raises:
        ConfigError: the trace cannot be read, or no earlier phase found the capacity.
    """
    if stream.trace is not None:
        return read_trace(Path(stream.trace), stream.speed, seconds)
    if stream.steps:
        return step_arrivals(stream.steps, seconds, rng)
    if stream.per_s is not None:
        return gamma_arrivals(stream.per_s, seconds, stream.cv, rng)
    if stream.per_capacity is None or not capacity_per_s:
        raise ConfigError(f"{stream.name}: no earlier phase found the capacity")
    return gamma_arrivals(stream.per_capacity * capacity_per_s, seconds, stream.cv, rng)


def poisson_arrivals(per_s: float, seconds: float, rng: np.random.Generator) -> Times:
    """Return the arrival times of a Poisson process of `per_s` over `seconds`."""
    # Given their number, the arrivals of a Poisson process are uniformly distributed.
    times: Times = np.sort(rng.random(rng.poisson(per_s * seconds)) * seconds)
    return times


def gamma_arrivals(per_s: float, seconds: float, cv: float, rng: np.random.Generator) -> Times:
    """Return arrivals whose gaps are gamma distributed with a coefficient of variation."""
    if cv == 1:
        return poisson_arrivals(per_s, seconds, rng)
    shape = cv**-2
    # A process that began at 0 would begin with a burst: what is watched begins later, in it.
    start_s = _EARLIER_GAPS * max(cv**2, 1) / per_s
    times = np.zeros(1)
    while times[-1] < start_s + seconds:
        count = int(per_s * (start_s + seconds) * 1.2) + 10
        gaps = rng.gamma(shape, 1 / (shape * per_s), count)
        times = np.concatenate([times, times[-1] + np.cumsum(gaps)])
    watched: Times = times[(times >= start_s) & (times < start_s + seconds)] - start_s
    return watched


def step_arrivals(
    steps: tuple[tuple[float, float], ...], seconds: float, rng: np.random.Generator
) -> Times:
    """Return Poisson arrivals whose rate follows (per_s, seconds) steps, repeated."""
    parts, start = [], 0.0
    while start < seconds:
        for per_s, length in steps:
            part = min(length, seconds - start)
            if part > 0:
                parts.append(start + poisson_arrivals(per_s, part, rng))
            start += length
    return np.concatenate(parts)


def read_trace(path: Path, speed: float, seconds: float = math.inf) -> Times:
    """Return the arrivals of a trace, sped up, that lie within `seconds`.

    Raises:
        ConfigError: the file cannot be read, or has no column `arrival_ms`.
    """
    try:
        data = path.read_bytes()
        lines = (gzip.decompress(data) if path.suffix == ".gz" else data).decode().splitlines()
        times = np.array([float(row["arrival_ms"]) for row in csv.DictReader(lines)])
    except (OSError, KeyError, ValueError) as error:
        raise ConfigError(f"{path}: not a trace with a column arrival_ms: {error}") from None
    times = np.sort(times - times.min(initial=math.inf)) / (1000 * speed)
    return times[times < seconds]
