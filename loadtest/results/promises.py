"""Checks whether a run kept the promises of its scenario."""

from collections.abc import Sequence

from cacheproxy.errors import ConfigError

from ..traffic.scenario import Promise
from .result import Kept, PhaseResult


def check_promises(promises: Sequence[Promise], phases: Sequence[PhaseResult]) -> list[Kept]:
    """Return each promise with the figure that was found.

    Raises:
        ConfigError: a promise names a figure that does not exist.
    """
    return [_check(promise, phases) for promise in promises]


def _check(promise: Promise, phases: Sequence[PhaseResult]) -> Kept:
    value = _figure(promise.phase, promise, phases)
    factor = promise.at_most if promise.at_least is None else promise.at_least
    limit = float(factor or 0)
    if promise.times is not None:
        limit *= _figure(promise.times, promise, phases)
    is_kept = value <= limit if promise.at_least is None else value >= limit
    word = "at most" if promise.at_least is None else "at least"
    of = f" times that of {promise.times}" if promise.times else ""
    said = f"{promise.phase}: {promise.figure} {word} {factor:g}{of}"
    return Kept(said, value, limit, is_kept, promise.phase, promise.stream or "", promise.figure)


def _figure(phase_name: str, promise: Promise, phases: Sequence[PhaseResult]) -> float:
    phase = next(phase for phase in phases if phase.name == phase_name)
    stream = next(
        (one for one in phase.streams if promise.stream in (None, one.name)), phase.streams[0]
    )
    for figures in (phase.figures, stream.figures):
        if promise.figure in figures:
            return figures[promise.figure]
    raise ConfigError(f"{phase_name}: there is no figure {promise.figure}")
