"""The static probe: one vector per token of the vocabulary, distilled from the model itself.

Each token is embedded alone between the special tokens. The vectors are centred, projected onto
their 256 principal axes, and weighted by log(1 + rank): vocabularies are ordered by frequency, so
frequent words, which carry little meaning, get little weight (the recipe of model2vec, after Zipf's
law). The probe of a text is the normalised mean of its tokens' rows, and needs no forward pass.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from cacheproxy.modelkit.building.weights import Floats

PROBE_DIMENSIONS = 256

_GROUP = 256
"""Tokens embedded by one call: enough to keep the matrix kernels full."""


def distill_probe(
    encode: Callable[[NDArray[np.int64]], Floats],
    vocabulary_size: int,
    around: tuple[int, int],
    special: Sequence[int],
) -> NDArray[np.float16]:
    """Return the table, float16 [vocabulary, 256]; the rows of special tokens are zero.

    Args:
        encode: returns unit rows, float32 [n, dim], for ids, int64 [n, 3].
        vocabulary_size: number of tokens.
        around: the special tokens before and after a text.
        special: all special tokens.
    """
    first, last = around
    tokens = np.arange(vocabulary_size)
    texts = np.stack([np.full_like(tokens, first), tokens, np.full_like(tokens, last)], axis=1)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        groups = np.array_split(texts, -(-vocabulary_size // _GROUP))
        vectors = np.concatenate(list(pool.map(encode, groups)))
    # In place: vocabularies of 250,000 tokens make tables of half a gigabyte.
    vectors -= vectors.mean(axis=0)
    _, axes = np.linalg.eigh(vectors.T @ vectors)
    principal = axes[:, ::-1][:, :PROBE_DIMENSIONS]
    table = vectors @ principal * np.log(1 + tokens)[:, None]
    table[list(special)] = 0
    table /= max(table.max(), -table.min())
    result: NDArray[np.float16] = table.astype(np.float16)
    return result
