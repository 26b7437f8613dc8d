"""Whether a group that has the machine to itself runs on all cores or on one.

A barrier between cores follows each of some hundred operations of the graph. For short texts these
cost more than the other cores save, for long ones much less, and where the line is depends on the
machine: on its cores, and on what else they do. So both ways are timed as groups come, by length,
and the faster one is taken. Pure: no I/O, no clock.
"""

import math

_EASE = 1.02
"""By how much each group raises the least time of its kind, so that an old one is forgotten in some
dozens of groups. The least is compared, because all that disturbs a group makes it slower."""

_TRIALS = 8
"""The first groups of one length take turns; the very first of a session is slower than others."""

_RETRY_EVERY = 256
"""Of this many groups of one length, one runs the slower way, which may be the faster by now."""


class _Kind:
    """What groups of like size have taken at least of late, seconds a token: spread, and not."""

    __slots__ = ("groups", "seconds")

    def __init__(self) -> None:
        self.groups = 0
        self.seconds = {True: math.inf, False: math.inf}


class Spread:
    """Learns from the groups of one model which of them to spread over all cores."""

    def __init__(self) -> None:
        self._kinds: dict[int, _Kind] = {}

    def is_worth_it(self, tokens: int) -> bool:
        """Return whether the next lone group, of this many tokens, is to run on all cores."""
        kind = self._kind(tokens)
        kind.groups += 1
        if kind.groups <= _TRIALS:
            return kind.groups % 2 == 0
        is_faster = kind.seconds[True] < kind.seconds[False]
        return is_faster != (kind.groups % _RETRY_EVERY == 0)

    def took(self, tokens: int, seconds: float, *, spread: bool) -> None:
        """Learn how long a lone group took."""
        known = self._kind(tokens).seconds
        known[spread] = min(seconds / tokens, _EASE * known[spread])

    def _kind(self, tokens: int) -> _Kind:
        # Within a factor of two; a group has thousands of tokens at most.
        return self._kinds.setdefault(tokens.bit_length(), _Kind())
