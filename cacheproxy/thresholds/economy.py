"""Decides whether lookups by probe pay off: their cost against the inference time that they save.

Every text that misses the exact tiers pays for a lookup, and every hit saves an inference. If even
the hits that the evidence could at best allow would not pay for the lookups, the tier steps aside.
It tries again after a while, because traffic changes, and after twice as long each time that a
trial was in vain: where the tier spares nothing, trials soon take one text of a hundred. A trial
adds a third to the cost of a miss, so it waits for spare capacity: with two cores busy at 1,500
requests/s it caused a queue (p99 of 120 to 250 ms instead of 26 to 67). A pure state machine for
one namespace.
"""

_TRIAL_TEXTS = 2_000
"""Texts looked up before a decision: enough to see a hit ratio of a few percent."""

_REST = 10
_LONGEST_REST = 100
"""Pause before the next trial as a multiple of those texts: after the first trial in vain, and the
maximum, also if there is never spare capacity."""

_ROOM = 0.8
"""Share of requests that find inference idle, from which on there is capacity for a trial."""

_ROOM_MEMORY = 0.99
"""Weight of the past in that share: about the last hundred requests count."""

_MEMORY = 0.98
"""Weight of the past in measured times: about the last fifty requests count."""


class Economy:
    """One namespace's account, in seconds a text.

    Attributes:
        lookup_s: the measured cost of a lookup.
        inference_s: the measured inference time that a hit saves.
        is_aside: whether no lookups are made for now.
        hits: texts that needed no inference.
        spared_s: the inference time saved, estimated from other texts, seconds.
    """

    def __init__(self) -> None:
        self.lookup_s = 0.0
        self.inference_s = 0.0
        self.is_aside = False
        self.hits = 0
        self.spared_s = 0.0
        self._texts = 0
        self._rest = _REST
        self._has_rested = False
        self._room = 1.0

    def looked_up(self, seconds: float, texts: int, hits: int) -> None:
        """Add the time of a request's lookups, probes included, and the number of its hits."""
        self.lookup_s = _mean(self.lookup_s, seconds / texts)
        self.hits += hits
        self.spared_s += hits * self.inference_s
        self._texts += texts

    def inferred(self, seconds: float, texts: int) -> None:
        """Add the time of a request's inference, waiting included."""
        self.inference_s = _mean(self.inference_s, seconds / texts)

    def passed(self, texts: int, *, is_idle: bool) -> None:
        """Add a request's texts that were not looked up because the tier has stepped aside.

        `is_idle` is whether inference had spare capacity.
        """
        self._texts += texts
        self._room = _ROOM_MEMORY * self._room + (1 - _ROOM_MEMORY) * is_idle
        rest = self._texts / _TRIAL_TEXTS
        if rest >= _LONGEST_REST or (rest >= self._rest and self._room >= _ROOM):
            self.is_aside = False
            self._texts = 0

    def is_due(self) -> bool:
        """Return whether a trial has ended, and `settle` is to be called."""
        return not self.is_aside and self._texts >= _TRIAL_TEXTS

    def settle(self, hit_share: float) -> None:
        """Decide by the share of looked-up texts that would hit at best."""
        self._texts = 0
        is_in_vain = hit_share * self.inference_s < self.lookup_s
        if is_in_vain and self._has_rested:
            self._rest = min(2 * self._rest, _LONGEST_REST)
        elif not is_in_vain:
            self._rest = _REST
        self.is_aside = self._has_rested = is_in_vain


def _mean(before: float, now: float) -> float:
    return _MEMORY * before + (1 - _MEMORY) * now if before else now
