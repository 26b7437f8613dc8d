"""Limits of rates that hold at all times together, however often one looks.

Each is a test by betting (Shafer, 2021, Journal of the Royal Statistical Society A 184:407;
Waudby-Smith and Ramdas, 2024, JRSS B 86:1). Somebody bets against "the rate is m or more" that it
is a share b of m; each label multiplies the capital by how much better the bet foretold it. While
the rate is m or more, the capital is a supermartingale, and ever exceeds 1 / error with at most the
probability `error` (Ville, 1939). So what has cost the bets on m so much capital is not in the
limit. The capital is spread over a few shares b, as Robbins' mixtures are (1970, Annals of
Mathematical Statistics 41:1397), since no one knows the best one beforehand. It depends on the
counts alone, not on the order in which they came.

With no error seen an upper limit takes 1.2 times the labels of one that holds for a single look,
with five 1.3 times, at 95 %.
"""

import math
from collections.abc import Callable

_BELOW = ((0.04, 0.45), (0.25, 0.4), (0.5, 0.15))
_ABOVE = ((1.5, 0.25), (2.5, 0.25), (5.0, 0.25), (12.0, 0.25))
"""Shares of the rate in question on which is bet, each with its part of the capital."""

_STEPS = 40


def most_expected(count: float, error: float) -> float:
    """Return the upper limit of a Poisson variable's mean, of which `count` were seen."""

    def capital(mean: float) -> float:
        return math.fsum(
            part * math.exp(min(600.0, count * math.log(bet) + (1 - bet) * mean))
            for bet, part in _BELOW
        )

    high = 2 * count + 20.0
    while capital(high) < 1 / error:
        high *= 2
    return _where(lambda mean: capital(mean) >= 1 / error, count, high)[1]


def least_expected(count: float, error: float) -> float:
    """Return the lower limit of a Poisson variable's mean, of which `count` were seen."""

    def capital(mean: float) -> float:
        return math.fsum(
            part * math.exp(min(600.0, count * math.log(bet) - (bet - 1) * mean))
            for bet, part in _ABOVE
        )

    if capital(0.0) < 1 / error:
        return 0.0
    return _where(lambda mean: capital(mean) < 1 / error, 0.0, count)[0]


def least_rate(found: int, trials: int, error: float) -> float:
    """Return the lower limit of a rate, of which `found` in so many trials were seen."""
    missed = trials - found

    def capital(rate: float) -> float:
        return math.fsum(
            part
            * math.exp(
                min(
                    600.0,
                    missed * math.log(bet)
                    + found * (math.log1p(-bet * (1 - rate)) - math.log(rate)),
                )
            )
            for bet, part in _BELOW
        )

    return _where(lambda rate: capital(rate) < 1 / error, 0.0, 1.0)[0]


def _where(is_beyond: Callable[[float], bool], low: float, high: float) -> tuple[float, float]:
    """Return two close values, below and above the one from which on `is_beyond` is true."""
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if is_beyond(middle):
            high = middle
        else:
            low = middle
    return low, high
