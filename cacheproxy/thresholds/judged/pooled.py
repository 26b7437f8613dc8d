"""One score for a model, learned from the labels of all its namespaces.

A namespace begins with it, and goes on with a score of its own once it has labels enough. Evidence
is never pooled: what certifies a threshold, by whatever score, are the namespace's own labels.

What passes from namespace to namespace is two times nineteen weights of generic features of a pair
(cosine, shared words, lengths), and no text, vector or verdict. So that they tell of the traffic at
large and of nobody's alone, a namespace counts with a bounded number of labels, and there is no
pooled score before several namespaces have some.
"""

from collections.abc import Callable, Iterable

import numpy as np

from cacheproxy.thresholds.judged.evidence import Items
from cacheproxy.thresholds.judged.learned import LearnedScore, learn

LEAST_NAMESPACES = 3
_LEAST_LABELS, _MOST_LABELS = 16, 256
"""Of a namespace: with fewer it does not count, and only the latest are taken."""

_MOST_NAMESPACES = 32
"""The ones used last; with 256 labels each a fit takes some 10 ms."""

_MORE = 1.3
"""Times as many labels until the score is learned again."""


class PooledScore:
    """The score; it is learned again as labels come, when it is asked for."""

    def __init__(self, labels: Callable[[], Iterable[Items]]) -> None:
        """Prepare; `labels` gives each namespace's (`LABEL` [n]), the one used last first."""
        self._labels = labels
        self._score: LearnedScore | None = None
        self._learned_from = 0

    def __call__(self) -> LearnedScore | None:
        """Return the score; None while too few namespaces have labels."""
        parts: list[Items] = []
        for labels in self._labels():
            if len(labels) >= _LEAST_LABELS:
                parts.append(labels[-_MOST_LABELS:])
            if len(parts) == _MOST_NAMESPACES:
                break
        known = sum(map(len, parts))
        if len(parts) >= LEAST_NAMESPACES and known >= _MORE * self._learned_from:
            self._learned_from = known
            self._score = learn(np.concatenate(parts)) or self._score
        return self._score
