"""Bands of scores: the resolution in which evidence is kept and thresholds are set.

They are finer near 1, where a good probe scores correct neighbours and thresholds are found.
"""

from bisect import bisect_right

EDGES = (
    *(round(0.50 + 0.04 * step, 4) for step in range(8)),
    *(round(0.82 + 0.02 * step, 4) for step in range(4)),
    *(round(0.90 + 0.005 * step, 4) for step in range(12)),
    *(round(0.96 + 0.0025 * step, 4) for step in range(16)),
    0.9995,
)
"""Lowest scores of all bands but the first, which contains all lower scores."""

BANDS = len(EDGES) + 1


def band_of(score: float) -> int:
    """Return the band of a score, from 0 to BANDS - 1."""
    return bisect_right(EDGES, score)


def lowest_score(band: int) -> float:
    """Return the lowest score of a band."""
    return EDGES[band - 1] if band else -1.0
