"""Probes for store tests: unit rows, random by a fixed seed."""

import numpy as np


def unit(rows: np.ndarray) -> np.ndarray:
    """Return the rows scaled to length 1, float32."""
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def random_probes(count: int, dimensions: int = 32, seed: int = 0) -> np.ndarray:
    """Return float32 [count, dimensions], unit rows."""
    return unit(np.random.default_rng(seed).standard_normal((count, dimensions)))
