"""The lowest score at which neighbours may be served: the loosest threshold with enough evidence.

The bands are visited from the strictest down, merged into blocks of enough labels. A threshold is
certified if the upper limit of the error rate of everything above it is within the promise.
Failures before the first success do not end the search, but three consecutive failures after it do:
a stricter threshold is not always safer, and the highest scores may have the most errors.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from cacheproxy.thresholds.bands import BANDS
from cacheproxy.thresholds.bounds import Stratum, least_labels, rate_of, upper_limit

BLOCK_LABELS = 30
"""Minimum labels per block: fewer say nothing about a band on its own."""

MOST_MARGINAL = 6.0
"""Limit for the loosest block alone, as a multiple of the promised rate: a good average must not
hide a bad edge."""

_FAILURES = 3


class Certificate(NamedTuple):
    """What the evidence supports.

    Attributes:
        band: the lowest band that may be served; None while nothing may.
        error: the estimated error rate above the threshold, or above the best candidate.
        upper: its upper limit.
        labels: labels above the threshold, or above the best candidate.
        pairs_needed: about how many more labels would certify a threshold; infinite if every
            candidate has shown more errors than promised.
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
    """Return the loosest certified threshold; the counts are by band, the strictest last.

    Labels are always right, such as cosines of true vectors. The confidence is that of one look.
    """
    needed = least_labels(max_error, confidence)
    certified: Certificate | None = None
    best = Certificate(None, 0.0, 1.0, 0.0, float(needed))
    blocks: list[Stratum] = []
    block_traffic = block_labels = block_errors = 0.0
    seen = failures = 0.0
    for band in range(BANDS - 1, -1, -1):
        block_traffic += traffic[band]
        block_labels += labels[band]
        block_errors += errors[band]
        if block_labels < BLOCK_LABELS:
            continue
        blocks.append(Stratum(block_traffic, block_labels, block_errors))
        seen += block_labels
        marginal = (block_errors + 0.5) / (block_labels + 1)
        block_traffic = block_labels = block_errors = 0.0
        upper = upper_limit(blocks, confidence)
        found = certificate_of(
            band, rate_of(blocks), upper, seen, max_error=max_error, error=1 - confidence
        )
        if found.band is not None and marginal <= MOST_MARGINAL * max_error:
            certified, failures = found, 0
        elif certified is not None:
            failures += 1
            if failures == _FAILURES:
                break
        elif found.pairs_needed < best.pairs_needed or not best.labels:
            best = found._replace(band=None)
    return certified or best


def certificate_of(
    band: int, rate: float, upper: float, labels: float, *, max_error: float, error: float
) -> Certificate:
    """Return what is known of a threshold; its band is None if the limit is not within the promise.

    `rate` and `upper` are the share of wrong neighbours and its limit, `error` the probability
    with which that may be mistaken.
    """
    if upper <= max_error:
        return Certificate(band, rate, upper, labels, 0.0)
    needed = math.inf
    if rate < max_error:
        enough = -math.log(error) / _divergence(max(rate, 1e-9), max_error)
        needed = max(1.0, enough - labels)
    return Certificate(None, rate, upper, labels, needed)


def _divergence(p: float, q: float) -> float:
    """Return Kullback and Leibler's divergence of two rates, p from q."""
    return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
