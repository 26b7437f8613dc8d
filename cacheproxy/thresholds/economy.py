"""Whether lookups by probe are worth their time: what they cost against the inference they spare.

A lookup is paid by every text that misses the exact tiers, and spares inference to those that hit.
Where the hits that the evidence could allow at best would not pay for the lookups, the tier steps
aside, and tries again after a while: traffic changes. A trial adds a third to what a miss takes, so
that it waits for a time with room for it: of two cores that are busy with 1,500 requests/s it made
a queue (p99 of 120 to 250 ms in place of 26 to 67). One namespace's, as a pure state machine.
"""

_TRIAL_TEXTS = 2_000
"""Looked up before a judgement: enough to see hits of a few in a hundred."""

_REST = 10
_LONGEST_REST = 100
"""Times as many texts pass by before the next trial, and at most, if there never is room."""

_ROOM = 0.8
"""Share of requests that find inference idle, from which on there is room for a trial."""

_ROOM_MEMORY = 0.99
"""Weight of the past in that share: about the last hundred requests count."""

_MEMORY = 0.98
"""Weight of the past in measured times: about the last fifty requests count."""


class Economy:
    """One namespace's account, in seconds a text.

    Attributes:
        lookup_s: what a lookup costs a text, measured.
        inference_s: what a hit spares it, measured.
        is_aside: whether no lookups are made for now.
        hits: texts that were spared inference.
        spared_s: the inference that they were spared, by what it took others, seconds.
    """

    def __init__(self) -> None:
        self.lookup_s = 0.0
        self.inference_s = 0.0
        self.is_aside = False
        self.hits = 0
        self.spared_s = 0.0
        self._texts = 0
        self._room = 1.0

    def looked_up(self, seconds: float, texts: int, hits: int) -> None:
        """Take what a request's lookups took, probes included, and how many of its texts hit."""
        self.lookup_s = _mean(self.lookup_s, seconds / texts)
        self.hits += hits
        self.spared_s += hits * self.inference_s
        self._texts += texts

    def inferred(self, seconds: float, texts: int) -> None:
        """Take what a request's inference took, waiting included."""
        self.inference_s = _mean(self.inference_s, seconds / texts)

    def passed(self, texts: int, *, is_idle: bool) -> None:
        """Take a request's texts that were not looked up, the tier being aside.

        `is_idle` is whether inference had time for more.
        """
        self._texts += texts
        self._room = _ROOM_MEMORY * self._room + (1 - _ROOM_MEMORY) * is_idle
        rest = self._texts / _TRIAL_TEXTS
        if rest >= _LONGEST_REST or (rest >= _REST and self._room >= _ROOM):
            self.is_aside = False
            self._texts = 0

    def is_due(self) -> bool:
        """Return whether a trial has ended, and `settle` is to be called."""
        return not self.is_aside and self._texts >= _TRIAL_TEXTS

    def settle(self, hit_share: float) -> None:
        """Judge by the share of looked-up texts that hit at best."""
        self._texts = 0
        self.is_aside = hit_share * self.inference_s < self.lookup_s


def _mean(before: float, now: float) -> float:
    return _MEMORY * before + (1 - _MEMORY) * now if before else now
