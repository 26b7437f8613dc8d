"""Upper limits of an unevenly sampled error rate, and the amount of evidence that they need.

The limit is Fay and Feuer's (1997, Statistics in Medicine 16:791) for a weighted sum of Poisson
counts. It requires only that within a stratum sampling is independent of the outcome: the sampled
share may differ between strata and over time.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

_SAFETY = 1.011
"""Correction of Wilson and Hilferty's approximation, which is up to 1.0 % too low (checked from 2
to 2,000 degrees of freedom, at 90 to 99.9 %)."""


class Stratum(NamedTuple):
    """Traffic of which a part was checked.

    Attributes:
        traffic: number of texts, possibly weighted by age.
        labels: the number that were checked.
        errors: the number that were found wrong.
    """

    traffic: float
    labels: float
    errors: float


class ScaledCount(NamedTuple):
    """An error rate as a Poisson count of equally weighty errors, `errors`, times `scale`."""

    scale: float
    errors: float


def with_one_more(strata: Sequence[Stratum], *, at_worst: bool = True) -> ScaledCount | None:
    """Return the traffic's rate of errors with one additional, unseen error, as Fay and Feuer do.

    `scale` times an upper limit of the expected `errors` is an upper limit of the rate. None if
    some traffic was never checked.

    The additional error has the weight of the stratum with the largest weight, or, unless
    `at_worst`, the average weight of errors that are equally frequent everywhere. The latter
    follows Tiwari, Clegg and Zou (2006, Statistical Methods in Medical Research 15:547): if strata
    are meant to be checked equally often, their weights differ by chance.
    """
    total = sum(stratum.traffic for stratum in strata)
    if total <= 0:
        return None
    errors = variance = most = mean = 0.0
    for stratum in strata:
        if stratum.traffic <= 0:
            continue
        if stratum.labels <= 0:
            return None
        weight = stratum.traffic / total / stratum.labels
        errors += weight * stratum.errors
        variance += weight * weight * stratum.errors
        most = max(most, weight)
        mean += stratum.traffic / total * weight
    most = most if at_worst else mean
    spread = variance + most * most
    return ScaledCount(spread / (errors + most), (errors + most) ** 2 / spread - 1)


def as_seen(strata: Sequence[Stratum]) -> ScaledCount | None:
    """Return the traffic's rate of errors; None if there were none.

    `scale` times a lower limit of the expected `errors` is a lower limit of the rate. Strata that
    were never checked count as free of errors.
    """
    total = sum(stratum.traffic for stratum in strata)
    errors = variance = 0.0
    for stratum in strata:
        if stratum.labels > 0 and total > 0:
            weight = stratum.traffic / total / stratum.labels
            errors += weight * stratum.errors
            variance += weight * weight * stratum.errors
    return ScaledCount(variance / errors, errors**2 / variance) if errors > 0 else None


def upper_limit(strata: Sequence[Stratum], confidence: float) -> float:
    """Return the limit under which the traffic's rate of errors lies with this confidence.

    The limit is at most 1, and is 1 if some traffic was never checked. It holds for one look.
    """
    seen = with_one_more(strata)
    if seen is None:
        return 1.0
    return min(1.0, seen.scale / 2 * chi2_quantile(confidence, 2 * seen.errors + 2))


def chi2_quantile(confidence: float, degrees: float) -> float:
    """Return a value that the chi-squared quantile does not exceed, at 90 to 99.9 %.

    Exact at 2 degrees of freedom, at most 3.5 % more elsewhere (Wilson and Hilferty, 1931).
    """
    if abs(degrees - 2) < 1e-9:
        return -2 * math.log(1 - confidence)
    spread = 2 / (9 * degrees)
    z = NormalDist().inv_cdf(confidence)
    return _SAFETY * float(degrees * (1 - spread + z * math.sqrt(spread)) ** 3)


def rate_of(strata: Sequence[Stratum]) -> float:
    """Return the traffic's estimated rate of errors; 0 where none was checked."""
    checked = [stratum for stratum in strata if stratum.labels > 0]
    traffic = sum(stratum.traffic for stratum in checked)
    wrong = sum(stratum.traffic * stratum.errors / stratum.labels for stratum in checked)
    return wrong / traffic if traffic > 0 else 0.0


def lower_limit(found: float, trials: float, confidence: float) -> float:
    """Return the limit above which a rate lies with this confidence (Clopper and Pearson, 1934)."""
    if found <= 0:
        return 0.0
    # The limit is a quantile of the beta distribution, whose distribution function is the binomial
    # tail; bisection needs no more of it.
    low, high = 0.0, min(1.0, found / trials)
    while high - low > 1e-6:
        middle = (low + high) / 2
        if _at_least(round(found), round(trials), middle) < 1 - confidence:
            low = middle
        else:
            high = middle
    return low


def rate_upper_limit(found: float, trials: float, confidence: float) -> float:
    """Return the limit below which a rate lies with this confidence (Clopper and Pearson, 1934)."""
    return 1 - lower_limit(trials - found, trials, confidence) if trials > 0 else 1.0


def _at_least(found: int, trials: int, rate: float) -> float:
    """Return the probability of this many or more."""
    if rate <= 0:
        return float(found <= 0)
    if rate >= 1:
        return 1.0
    log_rate, log_rest = math.log(rate), math.log1p(-rate)
    whole = math.lgamma(trials + 1)
    return math.fsum(
        math.exp(
            whole
            - math.lgamma(count + 1)
            - math.lgamma(trials - count + 1)
            + count * log_rate
            + (trials - count) * log_rest
        )
        for count in range(found, trials + 1)
    )


def least_labels(max_error: float, confidence: float) -> int:
    """Return how many labels without an error are needed to certify `max_error`."""
    return math.ceil(-math.log(1 - confidence) / max_error)
