"""The seam between the semantic tier and what decides whether a neighbour may be served."""

from collections.abc import Callable
from typing import NamedTuple, Protocol


class Verdict(NamedTuple):
    """Whether a neighbour may be served, and whether the hit is to be checked afterwards."""

    is_hit: bool
    check: bool = False


class Controller(Protocol):
    """Decides, per namespace, whether a neighbour may be served.

    Scores are cosines of probe vectors, -1 to 1. A similarity tells whether serving the neighbour
    would have been right: of embeddings it is the cosine of the true vectors, of completions 1 if
    the answers agree, else 0.
    """

    def is_active(self, namespace_id: str, texts: int, *, is_idle: Callable[[], bool]) -> bool:
        """Return whether so many texts are to be looked up.

        False where that can lead to no hit and teach nothing, or costs more than it spares.
        `is_idle` returns whether inference has time for more at the moment.
        """

    def is_open(self, namespace_id: str) -> bool:
        """Return whether any neighbour might be served now, however near."""

    def judge(self, namespace_id: str, score: float, min_similarity: float | None) -> Verdict:
        """Return the verdict on a neighbour of this score; called once for each text with one.

        `min_similarity` is what the request asks for, None for the default.
        """

    def observe(self, namespace_id: str, score: float, similarity: float) -> None:
        """Take one piece of evidence: a neighbour's score and its true similarity.

        Of every judged text that was not a hit, and of every hit that was to be checked.
        """

    def looked_up(self, namespace_id: str, seconds: float, texts: int, hits: int) -> None:
        """Take what the lookups of a request's texts took, probes included, and how many hit."""

    def inferred(self, namespace_id: str, seconds: float, texts: int) -> None:
        """Take what the inference of a request's texts took, waiting included."""
