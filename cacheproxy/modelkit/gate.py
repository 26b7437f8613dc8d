"""The gate: what an INT8 model must show, against its float original, before it is installed.

Measured on texts that calibration never saw: the cosine between both models' vectors of a text,
whether both find the same nearest text, and whether a text's vector is the same bits alone and
among others. A model that fails is not installed; the report is kept beside one that passes.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from cacheproxy.errors import ModelError
from cacheproxy.modelkit.weights import Floats

# What a build for 7-bit weights still reaches, less a little: on MiniLM 8 bits give 0.9991, 0.9967
# and 0.97, 7 bits 0.9984, 0.9940 and 0.95.
LEAST_MEAN_COSINE = 0.997
LEAST_P1_COSINE = 0.99
LEAST_AGREEMENT = 0.92

_GROUP_SIZES = (2, 3, 7, 16, 64)
_GROUP_TOKENS = 2048
"""Largest group in the check of invariance: several times what the batcher ever forms."""

Encode = Callable[[NDArray[np.int64]], Floats]


@dataclass(frozen=True)
class GateReport:
    """What was measured; cosines are between the INT8 and the float vector of the same text.

    Attributes:
        texts: number of held-out texts.
        cosine_mean, cosine_p1, cosine_least: their mean, first percentile and minimum.
        neighbour_agreement: share of texts whose nearest other text is the same in both models.
        invariance_checks: vectors compared bit by bit with the vector of the text alone.
        invariance_failures: how many of them differed.
    """

    texts: int
    cosine_mean: float
    cosine_p1: float
    cosine_least: float
    neighbour_agreement: float
    invariance_checks: int
    invariance_failures: int

    def failures(self) -> list[str]:
        """Return one line for each demand that is not met."""
        demands = [
            (self.cosine_mean >= LEAST_MEAN_COSINE, "mean cosine", self.cosine_mean),
            (self.cosine_p1 >= LEAST_P1_COSINE, "first percentile of cosines", self.cosine_p1),
            (
                self.neighbour_agreement >= LEAST_AGREEMENT,
                "agreement on nearest texts",
                self.neighbour_agreement,
            ),
        ]
        lines = [f"{what} {value:.4f} is too low" for met, what, value in demands if not met]
        if self.invariance_failures:
            lines.append(f"{self.invariance_failures} vectors depend on their batch")
        return lines

    def as_dict(self) -> dict[str, float]:
        """Return the figures by name, for JSON."""
        return asdict(self)

    def as_text(self) -> str:
        """Return the report for a reader."""
        checks = f"{self.invariance_failures} of {self.invariance_checks} vectors"
        return "\n".join(
            [
                f"held-out texts                  {self.texts}",
                f"cosine to float, mean           {self.cosine_mean:.5f}  "
                f"(at least {LEAST_MEAN_COSINE})",
                f"cosine to float, 1st percentile {self.cosine_p1:.5f}  "
                f"(at least {LEAST_P1_COSINE})",
                f"cosine to float, least          {self.cosine_least:.5f}",
                f"same nearest text as float      {self.neighbour_agreement:.4f}  "
                f"(at least {LEAST_AGREEMENT})",
                f"changed by their batch          {checks}  (none allowed)",
                "",
            ]
        )


def measure(served: Encode, original: Encode, groups: Sequence[NDArray[np.int64]]) -> GateReport:
    """Return the gate's figures for held-out texts in int64 [n, tokens] groups of one length."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        ours = np.concatenate(list(pool.map(served, groups)))
        theirs = np.concatenate(list(pool.map(original, groups)))
    cosines = np.einsum("nd,nd->n", ours.astype(np.float64), theirs.astype(np.float64))
    checks, failures = _count_batch_effects(served, groups)
    return GateReport(
        texts=len(cosines),
        cosine_mean=float(cosines.mean()),
        cosine_p1=float(np.percentile(cosines, 1)),
        cosine_least=float(cosines.min()),
        neighbour_agreement=float((_nearest(ours) == _nearest(theirs)).mean()),
        invariance_checks=checks,
        invariance_failures=failures,
    )


def require_pass(report: GateReport, name: str) -> None:
    """Refuse a model whose report has failures.

    Raises:
        ModelError: one line with every demand that is not met.
    """
    failures = report.failures()
    if failures:
        raise ModelError(f"{name} fails its gate and is not installed: {'; '.join(failures)}")


def _nearest(vectors: Floats) -> NDArray[np.intp]:
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -np.inf)
    nearest: NDArray[np.intp] = scores.argmax(axis=1)
    return nearest


def _count_batch_effects(encode: Encode, groups: Sequence[NDArray[np.int64]]) -> tuple[int, int]:
    checks = failures = 0
    # Every third length is enough to meet each kernel's full and partial tiles.
    for ids in groups[::3]:
        text = ids[:1]
        (alone,) = encode(text)
        for size in _GROUP_SIZES:
            if text.size * size > _GROUP_TOKENS:
                break
            mates = np.resize(ids[::-1], (size, ids.shape[1]))
            mates[size // 2] = text[0]
            checks += 1
            failures += not np.array_equal(encode(mates)[size // 2], alone)
    return checks, failures
