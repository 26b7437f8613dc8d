"""The lowest score at which neighbours may be served: the loosest threshold with enough evidence.

The bands are visited from the strictest down, merged into blocks of enough labels. A threshold is
certified if the upper limit of the error rate of everything above it is within the promise.
Failures before the first success do not end the search, but three consecutive failures after it do:
a stricter threshold is not always safer, and the highest scores may have the most errors.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from cacheproxy.thresholds.bands import BANDS
from cacheproxy.thresholds.bounds import Stratum, least_labels, rate_of, upper_limit

_BLOCK_LABELS = 30
"""Minimum labels per block: fewer say nothing about a band on its own."""

_MOST_MARGINAL = 6.0
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


class Block(NamedTuple):
    """Adjacent bands whose counts are pooled, from `low` up to but excluding `high`."""

    low: int
    high: int
    stratum: Stratum


class Estimate(NamedTuple):
    """The error rate of some blocks' traffic.

    Attributes:
        error: the estimate.
        upper: its upper limit.
    """

    error: float
    upper: float


class Limits(Protocol):
    """Estimates from labels how many of a block's neighbours are wrong."""

    def estimate(self, blocks: Sequence[Block]) -> Estimate:
        """Return the error rate and its limit for the traffic of all these blocks together."""

    def marginal(self, block: Block) -> float:
        """Return a rough estimate of one block alone, which is never 0."""


class ExactLabels:
    """Limits for labels that are always correct, such as cosines of true vectors."""

    def __init__(self, confidence: float) -> None:
        self._confidence = confidence

    def estimate(self, blocks: Sequence[Block]) -> Estimate:
        """Return the error rate, each block weighted by its traffic."""
        strata = [block.stratum for block in blocks]
        return Estimate(rate_of(strata), upper_limit(strata, self._confidence))

    def marginal(self, block: Block) -> float:
        """Return the block's error rate with half an error added."""
        return (block.stratum.errors + 0.5) / (block.stratum.labels + 1)


def certify(
    traffic: Sequence[float],
    labels: Sequence[float],
    errors: Sequence[float],
    *,
    max_error: float,
    confidence: float,
    limits: Limits | None = None,
) -> Certificate:
    """Return the loosest certified threshold; the counts are by band, the strictest last.

    `limits` accounts for errors of the labels; by default labels are taken as exact.
    """
    limits = limits or ExactLabels(confidence)
    needed = least_labels(max_error, confidence)
    certified: Certificate | None = None
    best = Certificate(None, 0.0, 1.0, 0.0, float(needed))
    blocks: list[Block] = []
    stratum, high = Stratum(0.0, 0.0, 0.0), BANDS
    seen = failures = 0.0
    for band in range(BANDS - 1, -1, -1):
        stratum = Stratum(
            stratum.traffic + traffic[band],
            stratum.labels + labels[band],
            stratum.errors + errors[band],
        )
        if stratum.labels < _BLOCK_LABELS:
            continue
        block = Block(band, high, stratum)
        blocks.append(block)
        seen += stratum.labels
        stratum, high = Stratum(0.0, 0.0, 0.0), band
        found = _judge(limits.estimate(blocks), band, seen, max_error, confidence)
        if found.upper <= max_error and limits.marginal(block) <= _MOST_MARGINAL * max_error:
            certified, failures = found, 0
        elif certified is not None:
            failures += 1
            if failures == _FAILURES:
                break
        elif found.pairs_needed < best.pairs_needed or not best.labels:
            best = found._replace(band=None)
    return certified or best


def _judge(
    estimate: Estimate, band: int, labels: float, max_error: float, confidence: float
) -> Certificate:
    error, upper = estimate
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
