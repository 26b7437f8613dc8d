"""The promise about semantic hits, and how evidence for it is gathered."""

from dataclasses import dataclass

from cacheproxy.settings.sections import SemanticSettings
from cacheproxy.thresholds.bounds import least_labels

MIN_SIMILARITIES = (0.90, 0.95, 0.98)
"""Similarities for which evidence is kept, besides the operator's."""


@dataclass(frozen=True, slots=True)
class Promise:
    """The promise, and how evidence for it is gathered.

    Attributes:
        max_error: the promised P(wrong | semantic hit).
        confidence: of the promise, at every evaluation of the evidence.
        min_similarities: ascending; cosines of true vectors from which a neighbour is right. A
            request selects one; evidence is kept for all.
        least_checks: the share of hits that is always checked.
        most_checks: the share that is checked while there is little evidence.
        half_life: texts after which evidence counts half.
        fresh_labels: evidence also counts half after `fresh_labels / max_error` labels of served
            neighbours, so that new labels replace old ones at the rate at which they arrive.
    """

    max_error: float = 0.01
    confidence: float = 0.95
    min_similarities: tuple[float, ...] = MIN_SIMILARITIES
    least_checks: float = 0.05
    most_checks: float = 0.5
    half_life: float = 50_000.0
    fresh_labels: float = 20.0

    @property
    def kind(self) -> str:
        """The kind of evidence for this promise, as a part of its name in the store."""
        return ",".join(f"{kept:g}" for kept in self.min_similarities)

    @property
    def refit_every(self) -> int:
        """Texts between two looks at the evidence: an eighth of what it takes to open."""
        return max(8, least_labels(self.max_error, self.confidence) // 8)


def promise_of(semantic: SemanticSettings) -> Promise:
    """Return the promise that the settings make."""
    return Promise(
        max_error=semantic.max_error,
        confidence=semantic.confidence,
        min_similarities=tuple(sorted({*MIN_SIMILARITIES, semantic.min_similarity})),
    )
