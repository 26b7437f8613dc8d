"""Hit rates of a cache whose requests are independent of one another, by Che's approximation.

Under LRU an entry stays for nearly the same time T after its last request, whichever it is, and T
is such that the expected number of entries is what fits (Che, Tung, Wang: Hierarchical Web caching
systems, IEEE JSAC 2002). With first-in first-out an entry stays for T after it was written, and so
it does until a TTL that hits do not renew (Martina, Garetto, Leonardi: A unified approach to the
performance analysis of caching systems, INFOCOM 2014; Jung, Berger, Balakrishnan: Modeling
TTL-based Internet caches, INFOCOM 2003). Requests that come in bursts hit more often than this
says; texts that are asked for in one period only hit less often.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Policy = Literal["lru", "fifo"]

_GROUPS_A_DECADE = 200
_HALVINGS = 200


@dataclass(frozen=True, slots=True)
class Popularity:
    """How often texts are asked for.

    Attributes:
        rates: float64 [n], requests per second for each text of a group.
        texts: float64 [n], how many texts a group has.
        unseen_per_s: requests per second for texts that are asked for once and never again.
    """

    rates: NDArray[np.float64]
    texts: NDArray[np.float64]
    unseen_per_s: float = 0.0

    @property
    def requests_per_s(self) -> float:
        """All requests, per second."""
        return float(self.rates @ self.texts) + self.unseen_per_s

    def shared_by(self, processes: int) -> "Popularity":
        """Return what one of several processes gets, if requests are spread evenly."""
        return self.scaled(1 / processes)

    def scaled(self, by: float) -> "Popularity":
        """Return the popularity of the same texts at another rate."""
        return Popularity(by * self.rates, self.texts, by * self.unseen_per_s)


def zipf(texts: int, exponent: float, requests_per_s: float, unseen: float = 0.0) -> Popularity:
    """Return the popularity of texts of which the one at rank r is asked for r^-exponent as often.

    A share `unseen` of the requests is for other texts, each asked for once. The first thousand
    ranks are groups of their own; then groups are half a hundredth of a decade.
    """
    least = min(texts, 1_000)
    edges = np.arange(1, least + 1, dtype=np.float64)
    if texts > least:
        count = 2 + int(_GROUPS_A_DECADE * math.log10(texts / least))
        later = np.unique(np.geomspace(least + 1, texts + 1, count).round())
        edges = np.concatenate([edges, later])
    else:
        edges = np.append(edges, texts + 1.0)
    sizes = np.diff(edges)
    middles = np.sqrt(edges[:-1] * (edges[1:] - 1))
    weights = middles**-exponent
    again_per_s = (1 - unseen) * requests_per_s
    rates = weights * (again_per_s / float(weights @ sizes))
    return Popularity(rates, sizes, unseen * requests_per_s)


def counted(counts: Iterable[int], seconds: float) -> Popularity:
    """Return the popularity that counts of each text's requests within some time show."""
    rates, texts = np.unique(np.fromiter(counts, np.float64), return_counts=True)
    return Popularity(rates / seconds, texts.astype(np.float64))


@dataclass(frozen=True, slots=True)
class Reckoned:
    """What a cache does.

    Attributes:
        hit_rate: of all requests, 0 to 1.
        entries: how many it holds.
        stay_s: how long one stays; after its last request under LRU, else after it was written.
    """

    hit_rate: float
    entries: float
    stay_s: float


def reckon(popularity: Popularity, policy: Policy, room: float, ttl_s: float) -> Reckoned:
    """Return what a cache of `room` entries does that keeps none for longer than its TTL.

    Under LRU the TTL is reckoned as if it, too, began with the last request, unless that makes the
    hit rate higher than the TTL alone would.
    """
    stay_s = _stay_s(popularity, policy, room, ttl_s)
    held = _held(popularity.rates, policy, stay_s)
    by_ttl = _held(popularity.rates, "fifo", ttl_s)
    held = np.minimum(held, by_ttl)
    hits_per_s = float((popularity.rates * popularity.texts) @ held)
    entries = float(popularity.texts @ held) + _passing(popularity, stay_s)
    return Reckoned(hits_per_s / popularity.requests_per_s, entries, stay_s)


def _held(rates: NDArray[np.float64], policy: Policy, stay_s: float) -> NDArray[np.float64]:
    """Return how likely each text is held at any time, which is how often its requests hit."""
    if math.isinf(stay_s):
        return np.ones_like(rates)
    expected = rates * stay_s
    return -np.expm1(-expected) if policy == "lru" else expected / (1 + expected)


def _passing(popularity: Popularity, stay_s: float) -> float:
    """Return how many entries are of texts that are not asked for again."""
    return popularity.unseen_per_s * stay_s if popularity.unseen_per_s else 0.0


def _stay_s(popularity: Popularity, policy: Policy, room: float, ttl_s: float) -> float:
    def entries(stay_s: float) -> float:
        held = _held(popularity.rates, policy, stay_s)
        return float(popularity.texts @ held) + _passing(popularity, stay_s)

    if entries(ttl_s) <= room:
        return ttl_s
    low, high = 0.0, 1.0
    while entries(high) < room:
        high *= 2
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if entries(middle) < room else (low, middle)
    return min(low, ttl_s)
