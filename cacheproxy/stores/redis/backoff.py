"""Pauses between attempts to connect to Redis: exponential backoff with jitter."""

import random

_FIRST_S = 0.05
_LONGEST_S = 2.0


class Backoff:
    """Gives pauses that double from 50 ms to 2 s.

    Each is shortened by up to half at random, so that processes do not reconnect all at once.
    """

    def __init__(self) -> None:
        self._pause_s = _FIRST_S

    def next_pause_s(self) -> float:
        """Return how long to wait before the next attempt, seconds."""
        pause_s = self._pause_s
        self._pause_s = min(2 * pause_s, _LONGEST_S)
        return pause_s * random.uniform(0.5, 1)  # noqa: S311

    def reset(self) -> None:
        """Begin with the shortest pause again, after an attempt that succeeded."""
        self._pause_s = _FIRST_S
