"""What is promised of semantic hits, and how evidence is gathered for it."""

from dataclasses import dataclass

from cacheproxy.settings.sections import SemanticSettings
from cacheproxy.thresholds.bounds import least_labels

MIN_SIMILARITIES = (0.90, 0.95, 0.98)
"""For which evidence is kept, besides what an operator asks for."""


@dataclass(frozen=True, slots=True)
class Promise:
    """What is promised, and how evidence is gathered for it.

    Attributes:
        max_error: the promised P(wrong | semantic hit).
        confidence: of the promise, at every look at the evidence.
        min_similarities: rising; cosines of true vectors from which a neighbour is right. A request
            picks one; evidence is kept for all.
        least_checks: the share of hits that is checked however much is known.
        most_checks: the share while little is known.
        half_life: texts after which evidence weighs half.
        fresh_labels: after so many labels of what is served, divided by `max_error`, it does, too:
            news replaces what is old at the rate at which it comes.
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
        """What evidence for this promise is of, as a part of the name that it is kept under."""
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
