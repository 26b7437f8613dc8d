"""Upper limits on a rate of errors that was sampled unevenly, and how much evidence one needs.

The limit is Fay and Feuer's (1997, Statistics in Medicine 16:791) for a weighted sum of Poisson
counts. It needs only that within a stratum the sampling does not depend on what is sampled for: the
share that is sampled may differ from stratum to stratum, and over time.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

_SAFETY = 1.011
"""On Wilson and Hilferty's approximation, which lies up to 1.0 % low (checked from 2 to 2,000
degrees of freedom, at 90 to 99.9 %)."""


class Stratum(NamedTuple):
    """Traffic of which a part was checked.

    Attributes:
        traffic: texts that came, or were weighed by their age.
        labels: those that were checked.
        errors: those that were found wrong.
    """

    traffic: float
    labels: float
    errors: float


def upper_limit(strata: Sequence[Stratum], confidence: float) -> float:
    """Return the limit under which the traffic's rate of errors lies with this confidence.

    At most 1, which is also the answer where traffic was never checked.
    """
    total = sum(stratum.traffic for stratum in strata)
    if total <= 0:
        return 1.0
    errors = variance = most = 0.0
    for stratum in strata:
        if stratum.traffic <= 0:
            continue
        if stratum.labels <= 0:
            return 1.0
        weight = stratum.traffic / total / stratum.labels
        errors += weight * stratum.errors
        variance += weight * weight * stratum.errors
        most = max(most, weight)
    spread = variance + most * most
    degrees = 2 * (errors + most) ** 2 / spread
    return min(1.0, spread / (2 * (errors + most)) * chi2_quantile(confidence, degrees))


def chi2_quantile(confidence: float, degrees: float) -> float:
    """Return a value that the chi-squared quantile does not exceed, at 90 to 99.9 %.

    Exact at 2 degrees of freedom, at most 3.5 % more elsewhere (Wilson and Hilferty, 1931).
    """
    if abs(degrees - 2) < 1e-9:
        return -2 * math.log(1 - confidence)
    spread = 2 / (9 * degrees)
    z = NormalDist().inv_cdf(confidence)
    return _SAFETY * float(degrees * (1 - spread + z * math.sqrt(spread)) ** 3)


def lower_limit(found: int, trials: int, confidence: float) -> float:
    """Return the limit above which a rate lies with this confidence (Clopper and Pearson, 1934)."""
    low, high = 0.0, found / trials if trials else 0.0
    while high - low > 1e-6:
        middle = (low + high) / 2
        if _at_least(found, trials, middle) < 1 - confidence:
            low = middle
        else:
            high = middle
    return low


def _at_least(found: int, trials: int, rate: float) -> float:
    """Return how probable so many or more are."""
    return sum(
        math.comb(trials, count) * rate**count * (1 - rate) ** (trials - count)
        for count in range(found, trials + 1)
    )


def least_labels(max_error: float, confidence: float) -> int:
    """Return how many labels without an error it takes to promise `max_error`."""
    return math.ceil(-math.log(1 - confidence) / max_error)
