"""Which rates are tried: rising ones until a promise breaks, then those around the limit."""

from collections.abc import Callable
from dataclasses import dataclass

from ..errors import LoadTestError
from ..results.result import Limit
from .belief import Belief

_LEAST_SHARE = 0.1
"""The limit is searched down to this share of the rate of the first trial."""


@dataclass(frozen=True)
class Search:
    """How a limit is searched.

    Attributes:
        at_most: limits by the names of figures, which hold for every stream.
        at_least: the same, from below.
        start_per_s: rate of the first trial, requests a second of all streams together.
        step: factor from one trial to the next, until one breaks a promise.
        most_per_s: rate at which stepping up ends.
        precision: width of the interval at which the search ends, as a share of the limit.
        most_trials: number of trials after which it ends in any case.
    """

    at_most: dict[str, float]
    at_least: dict[str, float]
    start_per_s: float
    step: float
    most_per_s: float
    precision: float
    most_trials: int


def search_limit(search: Search, try_rate: Callable[[float], bool]) -> Limit:
    """Return the limit, without its trials; `try_rate` says whether a rate breaks a promise.

    Raises:
        LoadTestError: promises break at the lowest rate, too.
    """
    least_per_s = search.start_per_s * _LEAST_SHARE
    belief = Belief(least_per_s / search.step, search.most_per_s * search.step)
    count = 0

    def breaks(per_s: float) -> bool:
        nonlocal count
        broke = try_rate(per_s)
        belief.learn(per_s, broke=broke)
        count += 1
        return broke

    per_s = search.start_per_s
    if breaks(per_s):
        while breaks(per_s := per_s / search.step**2):
            if per_s < least_per_s or count >= search.most_trials:
                raise LoadTestError(f"promises break even at {per_s:.4g} requests/s")
    else:
        while count < search.most_trials and per_s < search.most_per_s:
            per_s = min(per_s * search.step, search.most_per_s)
            if breaks(per_s):
                break
        else:
            return Limit(None, per_s, None, search.precision)
    found = belief.estimate()
    while found.width > search.precision and count < search.most_trials:
        breaks(found.per_s)
        found = belief.estimate()
    return Limit(found.per_s, found.low_per_s, found.high_per_s, search.precision)
