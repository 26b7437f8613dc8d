"""How long an entry lives: what the request asks for, else its namespace's life, else the default.

What operators set is a longest life: entries that are written together live shorter by a random
share, each its own, so that they are not all missed again in one moment. What a client asks for is
its own affair, and taken at its word.
"""

import random
from collections.abc import Callable, Mapping


class Lifetimes:
    """The lives of one pipeline's entries."""

    def __init__(
        self,
        default_s: float,
        *,
        by_namespace_id: Mapping[str, float],
        jitter: float,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """Set the lives, seconds, which are shorter by up to the share `jitter`, 0 to 1.

        `chance` gives numbers in [0, 1).
        """
        self._default_s = default_s
        self._by_namespace_id = by_namespace_id
        self._jitter = jitter
        self._chance = chance

    def choose(self, namespace_id: str, asked_s: float | None) -> float:
        """Return the life of one new entry, seconds."""
        if asked_s is not None:
            return asked_s
        longest_s = self._by_namespace_id.get(namespace_id, self._default_s)
        return longest_s * (1 - self._jitter * self._chance())
