"""How the probability of a mistake is divided among all that may ever be certified.

A threshold is certified while its limit, which holds at all times (`anytime`), is within the
promise. Many could be: by the cosine and by each learned score, and from each start of the evidence
that is kept. Each has a part of the error probability. If the parts added up to the whole, any of
them would ever be certified wrongly with at most that probability, however they depend on one
another. As they depend on one another strongly, they may add up to more (`_TOGETHER`).

Along one score the parts are handed on (the fallback procedure; Wiens, 2003, Pharmaceutical
Statistics 2:211): a few starting points share its parts, and what was certified hands its part to
the next looser threshold. So walking down from a starting point costs nothing.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cacheproxy.thresholds.bands import BANDS, band_of
from cacheproxy.thresholds.judged.learned import band_of_odds

Floats = NDArray[np.float64]

_TOGETHER = 2.0
"""The parts add up to so many times the error probability; a single one never exceeds it.

With 1, the promise's confidence is proven by the union bound, which is exact for mistakes that
exclude one another. These go together: looser thresholds have the labels of stricter ones, and
learned scores and windows share theirs. 2 is calibrated by simulation, not proven: where scores say
nothing and exactly as many are wrong as is promised, so that all thresholds are on the border,
at most 3.5 % of runs open within 1,000 labels, where 5 % may
(`cacheproxy loadtest bench judged --border 1000 --seeds 1000`; docs/measurements.md).
"""

_COSINES = {0.985: 0.1, 0.97: 0.5, 0.945: 0.4}
_ODDS = {4.1: 0.5, 3.1: 0.5}
"""Starting points, cosines and log-odds, with their shares."""

_BY_COSINE, _BY_FITS = 0.8, 0.2
_EACH_FIT = 0.6
"""Each learned score has this share of what earlier ones have left."""

FIRST_FIT = 150
"""Labels at which a score is learned first; again whenever they are twice as many."""

_FIRST_WINDOW = 0.95
_WINDOW, _STEP = 2_048, 1_024
"""Labels kept; when there are more, the oldest `_STEP` are left out at once, and what is left
has a part of its own."""


class Window(NamedTuple):
    """Which labels count: the latest `labels`, with a share of the error probability."""

    labels: int
    share: float


def window_of(seen: int) -> Window:
    """Return the window after so many labels since the evidence began."""
    number = -((_WINDOW - seen) // _STEP) if seen > _WINDOW else 0
    share = (1 - _FIRST_WINDOW) / (number * (number + 1)) if number else _FIRST_WINDOW
    return Window(seen - number * _STEP, share)


def is_due(fits: int, seen: int) -> bool:
    """Return whether a score is to be learned after so many ones and labels."""
    due: bool = seen >= FIRST_FIT * 2**fits
    return due


def by_cosine(error: float) -> Floats:
    """Return what thresholds by the cosine's bands begin with, float64 [BANDS]."""
    shares = {band_of(cosine): share for cosine, share in _COSINES.items()}
    return _parts(shares, error * _TOGETHER * _BY_COSINE)


def by_odds(error: float, fit: int) -> Floats:
    """Return what thresholds by the bands of the `fit`-th learned score, from 1, begin with."""
    share = _BY_FITS * _EACH_FIT * (1 - _EACH_FIT) ** (fit - 1)
    bands = band_of_odds(np.array(list(_ODDS)))
    shares = dict(zip(bands.tolist(), _ODDS.values(), strict=True))
    return _parts(shares, error * _TOGETHER * share)


def usual_part(error: float) -> float:
    """Return what a threshold usually has, for a guess at how many labels it will take."""
    return error * _TOGETHER * _FIRST_WINDOW * _BY_COSINE * 0.4


def _parts(shares: Mapping[int, float], error: float) -> Floats:
    parts = np.zeros(BANDS)
    for band, share in shares.items():
        parts[band] = share * error
    return parts
