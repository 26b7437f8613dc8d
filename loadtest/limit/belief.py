"""What trials at different rates say of the limit, when trials near it go either way.

A plain bisection believes each trial, and one hiccup sends it the wrong way for good. This one
weighs them (Bayesian adaptive estimation of a threshold, as in Watson and Pelli, "QUEST", 1983, and
Kontsevich and Tyler, 1999): a trial at rate r breaks a promise with the probability

    P(r) = LAPSE + (1 - 2 LAPSE) / (1 + (limit / r) ** (1 / spread))

where limit and spread are unknown. The limit is thus the rate at which every second trial breaks.
The next trial is at the median of what is believed.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_LAPSE = 0.02
"""Share of trials whose outcome has nothing to do with the rate: a pause of the machine's."""

_SPREADS = (0.006, 0.012, 0.024, 0.048)
"""Relative widths of the range in which trials go either way, all equally likely beforehand. With
wider ones a search takes half as long again. In simulations the interval holds the limit in 97 to
100 of 100 searches up to a width of 3 %, and in 87 at 6 %."""

_POINTS = 4_000
_COVERED = (0.025, 0.975)


@dataclass(frozen=True)
class Estimate:
    """A limit in requests a second, with its 95 % credible interval."""

    per_s: float
    low_per_s: float
    high_per_s: float

    @property
    def width(self) -> float:
        """The interval's width as a share of the limit."""
        return (self.high_per_s - self.low_per_s) / self.per_s


class Belief:
    """The posterior of the limit, which lies between two rates; every ratio is equally likely."""

    def __init__(self, lowest_per_s: float, highest_per_s: float) -> None:
        self._log_rates = np.linspace(math.log(lowest_per_s), math.log(highest_per_s), _POINTS)
        self._log_weights = np.zeros((len(_SPREADS), _POINTS))

    def learn(self, per_s: float, *, broke: bool) -> None:
        """Take in one trial."""
        distance = (math.log(per_s) - self._log_rates) / np.array(_SPREADS)[:, None]
        # tanh is the logistic function without its overflow
        breaks = _LAPSE + (1 - 2 * _LAPSE) * (1 + np.tanh(distance / 2)) / 2
        self._log_weights += np.log(breaks if broke else 1 - breaks)

    def estimate(self) -> Estimate:
        """Return the median of what is believed, with its interval."""
        low, high = (self._quantile(share) for share in _COVERED)
        return Estimate(self._quantile(0.5), low, high)

    def _quantile(self, share: float) -> float:
        weights: NDArray[np.float64] = np.exp(self._log_weights - self._log_weights.max())
        total = np.cumsum(weights.sum(axis=0))
        return math.exp(float(np.interp(share * total[-1], total, self._log_rates)))
