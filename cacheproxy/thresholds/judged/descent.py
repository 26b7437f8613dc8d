"""The loosest threshold by one score that a judge's labels certify, found from above.

The bands are visited from the strictest down, merged into blocks of enough labels. At each starting
point (`spending`) the part of the error probability that waits there is added to what a certified
stricter threshold hands on, up to the whole; where a threshold is not certified, its part is lost.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cacheproxy.thresholds.bands import BANDS
from cacheproxy.thresholds.bounds import Stratum, least_labels
from cacheproxy.thresholds.certificate import (
    BLOCK_LABELS,
    MOST_MARGINAL,
    Certificate,
    certificate_of,
)
from cacheproxy.thresholds.judged.limits import Block, Counts, JudgedLabels, Sensitivity

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Claim:
    """What is to be certified of one score.

    Attributes:
        parts: float64 [BANDS], of the error probability, where thresholds begin.
        held: the band in service by this score, or None.
        error: the whole error probability, which is enough to stay in service: to serve what was
            certified once and still stands is no new claim.
        max_error: what is promised.
    """

    parts: Floats
    held: int | None
    error: float
    max_error: float


def descend(counts: Counts, sensitivity: Sensitivity, claim: Claim) -> Certificate:
    """Return the loosest certified threshold, or that in service, or the best try."""
    limits = JudgedLabels(counts, sensitivity)
    max_error = claim.max_error
    found: Certificate | None = None
    best = Certificate(None, 0.0, 1.0, 0.0, float(least_labels(max_error, 1 - claim.error)))
    blocks: list[Block] = []
    high, level = BANDS, 0.0

    def test(tried: Sequence[Block], error: float) -> Certificate:
        estimate = limits.estimate(tried, error)
        labels = sum(block.stratum.labels for block in tried)
        return certificate_of(tried[-1].low, *estimate, labels, max_error=max_error, error=error)

    for band in range(BANDS - 1, -1, -1):
        block = _block(counts, band, high)
        is_whole = block.stratum.labels >= BLOCK_LABELS
        part, is_held = float(claim.parts[band]), band == claim.held
        if not is_whole and not part and not is_held:
            continue
        tried = [*blocks, block] if is_whole or not blocks else _with_rest(counts, blocks, band)
        if is_whole:
            blocks, high = tried, band
        level = min(level + part, claim.error)
        if level > 0:
            tested = test(tried, level)
            if tested.band is None:
                level = 0.0
                if tested.pairs_needed < best.pairs_needed or not best.labels:
                    best = tested
            elif limits.marginal(tried[-1]) <= MOST_MARGINAL * max_error:
                found = tested
        if is_held and (found is None or found.band != band):
            tested = test(tried, claim.error)
            found = found if tested.band is None else tested
    return found or best


def _block(counts: Counts, low: int, high: int) -> Block:
    bands = slice(low, high)
    stratum = Stratum(
        float(counts.traffic[bands].sum()),
        float(counts.labels[bands].sum()),
        float(counts.rejected[bands].sum()),
    )
    return Block(low, high, stratum)


def _with_rest(counts: Counts, blocks: list[Block], low: int) -> list[Block]:
    """Return the blocks, the last one extended down to a band that is no whole block's."""
    return [*blocks[:-1], _block(counts, low, blocks[-1].high)]
