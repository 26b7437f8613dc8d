"""What a build gives, and what it starts from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cacheproxy.modelkit.gate.gate import Report

GPU_TOLERANCE = 1e-3
"""By how much a value of a vector may change with its batch on a GPU: cuBLAS picks its kernels by
shape, and float16 rounds at 5e-4."""


@dataclass(frozen=True)
class Probes:
    """An embedding model's probes: float16 [vocabulary, 256], and the shallow one's ONNX model."""

    static: NDArray[np.float16]
    shallow: bytes


@dataclass(frozen=True)
class BuiltModel:
    """A model, and what its gate has measured.

    Attributes:
        graph: the ONNX model.
        tokenizer_json: the tokenizer's definition.
        probes: an embedding model's; a reranker has none.
        report: of the gate.
        isa: the class of CPU that it was built for.
        record: what is written down about it.
        weights: files with tensors of its graphs, by name; empty if the graphs have them all.
    """

    graph: bytes
    tokenizer_json: bytes
    probes: Probes | None
    report: Report
    isa: str
    record: dict[str, Any]
    weights: Mapping[str, bytes] = field(default_factory=dict)
