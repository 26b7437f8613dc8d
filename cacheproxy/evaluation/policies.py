"""The policies of a replay: earned thresholds, a fixed one, or a logistic curve per entry."""

from collections.abc import Callable
from typing import Protocol

from cacheproxy.evaluation.logistic import EntryLogistic
from cacheproxy.thresholds.controller import Verdict
from cacheproxy.thresholds.earned import EarnedThresholds
from cacheproxy.thresholds.promise import Promise


class Policy(Protocol):
    """Decides about neighbours, and learns from labels; entries are identified by number.

    Attributes:
        name: for tables and plots.
        checks_seconds: whether a text's second hit is checked, as the semantic tier does.
    """

    name: str
    checks_seconds: bool

    def judge(self, entry: int, score: float) -> Verdict:
        """Return whether to serve the entry at this score, and whether to check it."""

    def observe(self, entry: int, score: float, similarity: float) -> None:
        """Add the label of a miss or of a checked hit."""

    @property
    def threshold(self) -> float | None:
        """The lowest score that is served now, or None."""


class Earned:
    """Earned thresholds."""

    name = "earned"

    def __init__(
        self,
        promise: Promise,
        min_similarity: float,
        draw: Callable[[], float],
        *,
        checks_seconds: bool = True,
    ) -> None:
        self.checks_seconds = checks_seconds
        self._thresholds = EarnedThresholds(promise, random=draw)
        self._min_similarity = min_similarity
        self._kept = promise.min_similarities.index(min_similarity)

    def judge(self, entry: int, score: float) -> Verdict:
        """Return the verdict that the evidence allows."""
        return self._thresholds.judge(score, self._min_similarity)

    def observe(self, entry: int, score: float, similarity: float) -> None:
        """Add to the evidence."""
        self._thresholds.observe(score, similarity)

    @property
    def threshold(self) -> float | None:
        """The currently earned threshold."""
        standing = self._thresholds.standings()[self._kept]
        return None if standing.is_suspended else standing.threshold

    @property
    def alarms(self) -> dict[str, int]:
        """How often the evidence was in doubt."""
        return dict(self._thresholds.alarms)


class Static:
    """A fixed threshold, as other caches have."""

    checks_seconds = False

    def __init__(self, threshold: float) -> None:
        self.name = f"static {threshold:g}"
        self._threshold = threshold

    def judge(self, entry: int, score: float) -> Verdict:
        """Return whether the score reaches the threshold."""
        return Verdict(score >= self._threshold)

    def observe(self, entry: int, score: float, similarity: float) -> None:
        """Learn nothing."""

    @property
    def threshold(self) -> float | None:
        """The fixed threshold."""
        return self._threshold


class PerEntryLogistic:
    """A logistic curve per entry, which bounds errors per request."""

    name = "logistic an entry"
    checks_seconds = False
    threshold = None

    def __init__(self, max_error: float, min_similarity: float, draw: Callable[[], float]) -> None:
        self._max_error = max_error
        self._min_similarity = min_similarity
        self._draw = draw
        self._entries: dict[int, EntryLogistic] = {}

    def judge(self, entry: int, score: float) -> Verdict:
        """Return what the entry's own curve allows."""
        curve = self._entries.get(entry)
        return Verdict(False) if curve is None else curve.judge(score, self._max_error, self._draw)

    def observe(self, entry: int, score: float, similarity: float) -> None:
        """Add to the entry's labels."""
        curve = self._entries.setdefault(entry, EntryLogistic())
        curve.add(score, similarity >= self._min_similarity)
