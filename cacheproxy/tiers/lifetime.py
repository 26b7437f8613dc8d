"""The TTL of an entry: the request's, else its namespace's, else the default.

The TTLs that operators set are maxima: each entry's TTL is shortened by a random share, so that
entries written together do not all expire at the same moment. A TTL that a client requests is used
unchanged.
"""

import random
from collections.abc import Callable, Mapping


class Lifetimes:
    """The TTLs of one route's entries."""

    def __init__(
        self,
        default_s: float,
        *,
        by_namespace_id: Mapping[str, float],
        jitter: float,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """Set the TTLs, seconds; each is shortened at random by up to the share `jitter`, 0 to 1.

        `chance` returns numbers in [0, 1).
        """
        self._chance = chance
        self.replace(default_s, by_namespace_id, jitter)

    def replace(
        self, default_s: float, by_namespace_id: Mapping[str, float], jitter: float
    ) -> None:
        """Choose by these from now on; entries that there are keep theirs."""
        self._default_s = default_s
        self._by_namespace_id = by_namespace_id
        self._jitter = jitter

    def choose(self, namespace_id: str, asked_s: float | None) -> float:
        """Return the TTL of one new entry, seconds."""
        if asked_s is not None:
            return asked_s
        longest_s = self._by_namespace_id.get(namespace_id, self._default_s)
        return longest_s * (1 - self._jitter * self._chance())
