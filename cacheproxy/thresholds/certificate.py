"""From which score on neighbours may be served: the loosest threshold that the evidence supports.

The bands are walked from the strictest down, merged into blocks of enough labels. A threshold is
certified if the upper limit of the error rate of all that lies above it is within the promise.
Failures before the first success do not end the walk, three in a row after it do: stricter is not
always safer, and the best scores may be the worst ones.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from cacheproxy.thresholds.bands import BANDS
from cacheproxy.thresholds.bounds import Stratum, least_labels, upper_limit

_BLOCK_LABELS = 30
"""Fewer say nothing of a band by itself."""

_MOST_MARGINAL = 6.0
"""Times the promised rate, of the loosest block alone: a good average must not hide a bad edge."""

_FAILURES = 3


class Certificate(NamedTuple):
    """What the evidence supports.

    Attributes:
        band: the lowest band that may be served; None while nothing may.
        error: the estimated rate of errors above the threshold, or of the best try.
        upper: its upper limit.
        labels: labels above the threshold, or of the best try.
        pairs_needed: about how many more labels would certify a threshold; infinite where every
            one has shown more errors than are promised.
    """

    band: int | None
    error: float
    upper: float
    labels: float
    pairs_needed: float


def certify(
    traffic: Sequence[float],
    labels: Sequence[float],
    errors: Sequence[float],
    *,
    max_error: float,
    confidence: float,
) -> Certificate:
    """Return the loosest certified threshold; the counts are by band, the strictest last."""
    needed = least_labels(max_error, confidence)
    certified: Certificate | None = None
    best = Certificate(None, 0.0, 1.0, 0.0, float(needed))
    strata: list[Stratum] = []
    block = Stratum(0.0, 0.0, 0.0)
    seen = failures = 0.0
    for band in range(BANDS - 1, -1, -1):
        block = Stratum(
            block.traffic + traffic[band], block.labels + labels[band], block.errors + errors[band]
        )
        if block.labels < _BLOCK_LABELS:
            continue
        strata.append(block)
        seen += block.labels
        found = _judge(strata, band, seen, max_error=max_error, confidence=confidence)
        marginal = (block.errors + 0.5) / (block.labels + 1)
        block = Stratum(0.0, 0.0, 0.0)
        if found.upper <= max_error and marginal <= _MOST_MARGINAL * max_error:
            certified, failures = found, 0
        elif certified is not None:
            failures += 1
            if failures == _FAILURES:
                break
        elif found.pairs_needed < best.pairs_needed or not best.labels:
            best = found._replace(band=None)
    return certified or best


def _judge(
    strata: Sequence[Stratum], band: int, labels: float, *, max_error: float, confidence: float
) -> Certificate:
    upper = upper_limit(strata, confidence)
    traffic = sum(stratum.traffic for stratum in strata)
    wrong = sum(stratum.traffic * stratum.errors / stratum.labels for stratum in strata)
    error = wrong / traffic if traffic else 0.0
    if upper <= max_error:
        return Certificate(band, error, upper, labels, 0.0)
    needed = math.inf
    if error < max_error:
        enough = -math.log(1 - confidence) / _divergence(max(error, 1e-9), max_error)
        needed = max(1.0, enough - labels)
    return Certificate(band, error, upper, labels, needed)


def _divergence(p: float, q: float) -> float:
    """Return Kullback and Leibler's divergence of two rates, p from q."""
    return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
