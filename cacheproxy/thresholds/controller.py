"""The interface between the semantic tier and the decision whether a neighbour may be served."""

from collections.abc import Callable
from typing import NamedTuple, Protocol


class Verdict(NamedTuple):
    """Whether a neighbour may be served, and whether the hit is to be checked afterwards."""

    is_hit: bool
    check: bool = False


class Controller(Protocol):
    """Decides, per namespace, whether a neighbour may be served.

    Scores are cosines of probe vectors, -1 to 1. A similarity tells whether serving the neighbour
    would have been right: for embeddings it is the cosine of the true vectors, for completions 1 if
    the answers agree, else 0.
    """

    def is_active(self, namespace_id: str, texts: int, *, is_idle: Callable[[], bool]) -> bool:
        """Return whether this many texts are to be looked up.

        False if lookups can neither hit nor yield labels, or cost more than they save. `is_idle`
        returns whether inference has spare capacity at the moment.
        """

    def is_open(self, namespace_id: str) -> bool:
        """Return whether any neighbour might be served now, however near."""

    def judge(self, namespace_id: str, score: float, min_similarity: float | None) -> Verdict:
        """Return the verdict on a neighbour of this score; called once for each text with one.

        `min_similarity` is the request's, or None for the default.
        """

    def observe(self, namespace_id: str, score: float, similarity: float) -> None:
        """Add a label: a neighbour's score and its true similarity.

        It is called for every judged text that was not a hit, and for every hit to be checked.
        """

    def looked_up(self, namespace_id: str, seconds: float, texts: int, hits: int) -> None:
        """Add the time of a request's lookups, probes included, and the number of hits."""

    def inferred(self, namespace_id: str, seconds: float, texts: int) -> None:
        """Add the time of a request's inference, waiting included."""
