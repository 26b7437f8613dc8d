"""The gate: requirements that an INT8 model must meet, relative to its float original.

A model that fails is not installed; the report of one that passes is kept with it. `measure`
computes the figures.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import ClassVar

from cacheproxy.errors import ModelError

# What a build for 7-bit weights still reaches, less a little: on MiniLM 8 bits give 0.9991, 0.9967
# and 0.97, 7 bits 0.9984, 0.9940 and 0.95.
LEAST_MEAN_COSINE = 0.997
LEAST_P1_COSINE = 0.99
LEAST_AGREEMENT = 0.92

MOST_STS_LOSS = 0.005
"""On the shipped pairs 8 and 7 bits come within 0.0004 of float."""

MOST_RECALL_LOSS = 0.05
"""Two of about 46 queries, because one may change by chance."""


@dataclass(frozen=True)
class Quality:
    """The quality of a model.

    Attributes:
        sts: Spearman's correlation of its cosines with the pairs' scores.
        recall_at_1, recall_at_10: share of queries whose document is first, or among the first ten.
    """

    sts: float
    recall_at_1: float
    recall_at_10: float


@dataclass(frozen=True, kw_only=True)
class Report(ABC):
    """What was measured of a model, and what is required of it.

    Attributes:
        invariance_checks: results compared bit by bit with the result of the same input alone.
        invariance_failures: how many of them differed.
    """

    invariance_checks: int
    invariance_failures: int

    results: ClassVar[str]
    """What the model gives, as the report calls it."""

    def failures(self) -> list[str]:
        """Return one line for each requirement that is not met."""
        lines = [
            f"{what} {value:.4f} is below {least:.4f}"
            for what, value, least in self._demands()
            if not value >= least  # true for NaN
        ]
        if self.invariance_failures:
            lines.append(f"{self.invariance_failures} {self.results} depend on their batch")
        return lines

    def as_dict(self) -> dict[str, object]:
        """Return the figures by name, for JSON."""
        return asdict(self)

    def as_text(self) -> str:
        """Return the report as text."""
        failed = f"{self.invariance_failures} of {self.invariance_checks} {self.results}"
        lines = [
            *self._facts(),
            *(
                (what, f"{value:.5f}  (at least {least:.4f})")
                for what, value, least in self._demands()
            ),
            ("changed by their batch", f"{failed}  (none allowed)"),
        ]
        return "".join(f"{what:32}{value}\n" for what, value in lines)

    @abstractmethod
    def _demands(self) -> Iterator[tuple[str, float, float]]:
        """Yield what is required: its name, the value, and the least value that passes."""

    @abstractmethod
    def _facts(self) -> Iterator[tuple[str, str]]:
        """Yield what is told besides, each by its name."""


@dataclass(frozen=True, kw_only=True)
class GateReport(Report):
    """The measurements; cosines are between the INT8 and the float vector of the same text.

    Attributes:
        texts: number of held-out texts.
        cosine_mean, cosine_p1, cosine_least: their mean, first percentile and minimum.
        neighbour_agreement: share of texts whose nearest other text is the same in both models.
        pairs: number of pairs with a score.
        queries: number of queries of the search.
        served: the INT8 model's quality.
        original: the float model's.
    """

    results = "vectors"

    texts: int
    cosine_mean: float
    cosine_p1: float
    cosine_least: float
    neighbour_agreement: float
    pairs: int
    queries: int
    served: Quality
    original: Quality

    def _demands(self) -> Iterator[tuple[str, float, float]]:
        yield "cosine to float, mean", self.cosine_mean, LEAST_MEAN_COSINE
        yield "cosine to float, 1st percentile", self.cosine_p1, LEAST_P1_COSINE
        yield "same nearest text as float", self.neighbour_agreement, LEAST_AGREEMENT
        yield "STS, Spearman", self.served.sts, self.original.sts - MOST_STS_LOSS
        for name in ("recall_at_1", "recall_at_10"):
            original: float = getattr(self.original, name)
            what = name.replace("_at_", "@")
            yield f"search, {what}", getattr(self.served, name), original - MOST_RECALL_LOSS

    def _facts(self) -> Iterator[tuple[str, str]]:
        yield "held-out texts, pairs, queries", f"{self.texts}, {self.pairs}, {self.queries}"
        yield "cosine to float, least", f"{self.cosine_least:.5f}"


def require_pass(report: Report, name: str) -> None:
    """Refuse a model whose report has failures.

    Raises:
        ModelError: one line with every requirement that is not met.
    """
    failures = report.failures()
    if failures:
        raise ModelError(f"{name} fails its gate and is not installed: {'; '.join(failures)}")
