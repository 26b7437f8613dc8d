"""The seam between the semantic tier and what decides whether a neighbour may be served."""

from typing import Protocol


class Controller(Protocol):
    """Decides, per namespace, from which score on a neighbour may be served.

    Scores are cosines of probe vectors, -1 to 1. A similarity is the cosine of the true vectors,
    and tells whether serving the neighbour would have been right.
    """

    @property
    def is_active(self) -> bool:
        """False where no lookup can lead to a hit or teach anything, so that none is made."""

    def threshold(self, namespace_id: str, min_similarity: float | None) -> float | None:
        """Return the lowest score that may be served; None while the tier is closed.

        `min_similarity` is what the request asks for: it may be stricter, never looser.
        """

    def observe(self, namespace_id: str, score: float, similarity: float) -> None:
        """Take one piece of evidence: a neighbour's score and its true similarity."""
