"""Why a namespace's semantic tier for embeddings is open or closed, in a sentence for operators."""

import math
from datetime import UTC, datetime

from cacheproxy.thresholds.certified import Account
from cacheproxy.thresholds.earned import Standing


def tell_story(account: Account, standing: Standing, *, max_error: float, now: float) -> str:
    """Return the state of a namespace, the reason, and when it may change at this traffic.

    Args:
        account: the namespace's.
        standing: of the default min_similarity.
        max_error: what is promised.
        now: Unix time, seconds.
    """
    if account.is_aside:
        return (
            "aside: lookups cost more than their hits would save; it tries again by itself, when"
            " inference has room"
        )
    if standing.threshold is None:
        return _closed(account, standing, max_error, now)
    if standing.is_suspended:
        return (
            f"suspended: more hits were wrong lately than the {max_error:.1%} that are promised; it"
            " goes on once checked texts agree again"
        )
    told = (
        f"open: serves from score {standing.threshold:.3f}; at most {standing.upper:.2%} wrong by"
        f" {standing.labels:,.0f} labels, {max_error:.1%} are promised"
    )
    if account.hits:
        told += f"; {account.hits:,} hits of one worker saved {account.spared_s:,.1f} s"
    return told


def _closed(account: Account, standing: Standing, max_error: float, now: float) -> str:
    if not standing.labels:
        return "closed: no label yet; a label comes with each miss that has a neighbour"
    told = f"closed: {standing.labels:,.0f} labels for the best threshold"
    if math.isinf(standing.pairs_needed):
        return (
            f"{told}; none is safe, the best one has {standing.error:.1%} wrong and"
            f" {max_error:.1%} are promised"
        )
    told += f", about {math.ceil(standing.pairs_needed):,} more to open"
    if account.labels_per_s:
        ready = datetime.fromtimestamp(now + standing.pairs_needed / account.labels_per_s, UTC)
        told += f", at this traffic by {ready:%Y-%m-%d %H:%M} UTC"
    return told
