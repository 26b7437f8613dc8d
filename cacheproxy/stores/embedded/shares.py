"""Whose entries are evicted: first of those beyond a bound of their own, then of the fullest.

Owners divide the store as they divide memory (`fairness.shelves`): while it is too full, whoever
holds the most in proportion to its share loses its oldest unused entries. Pure.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from cacheproxy.stores.embedded.rows import Excess, Holding, Usage


class StoreTerms(NamedTuple):
    """What an owner may hold: its share, and the most entries and bytes whatever is free."""

    share: float = 1.0
    most_entries: float = math.inf
    most_bytes: float = math.inf


StoreTermsOf = Callable[[str], StoreTerms]

_EQUAL = StoreTerms()


def equal(_: str) -> StoreTerms:
    """Return the same terms for every owner."""
    return _EQUAL


class StoreShares:
    """Finds whose entries have to go."""

    def __init__(self, max_bytes: int, terms: StoreTermsOf = equal) -> None:
        """Keep the whole store within `max_bytes`."""
        self._max_bytes = max_bytes
        self._terms = terms

    def find_excess(self, usage: Usage, holdings: Sequence[Holding]) -> Excess | None:
        """Return how many of whose entries have to go, or None."""
        for holding in holdings:
            terms = self._terms(holding.owner)
            entries = holding.entries - terms.most_entries
            entries = max(entries, _entries(holding, holding.size_bytes - terms.most_bytes))
            if entries > 0:
                return Excess(holding.owner, math.ceil(entries))
        excess_bytes = usage.live_bytes - self._max_bytes
        if excess_bytes <= 0 or not holdings:
            return None
        fullest = max(holdings, key=lambda one: one.size_bytes / self._terms(one.owner).share)
        return Excess(fullest.owner, 1 + int(_entries(fullest, excess_bytes)))


def _entries(holding: Holding, size_bytes: float) -> float:
    """Return about how many of an owner's entries have so many bytes."""
    return size_bytes * holding.entries / max(holding.size_bytes, 1)
