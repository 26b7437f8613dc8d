"""The whole probe: the local model's own vectors, for texts that an upstream infers."""

import asyncio
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cacheproxy.inference.batcher import Batcher


class WholeProbe:
    """A `Probe` that runs the local model through the shared batcher."""

    name = "whole-1"

    def __init__(self, batcher: Batcher) -> None:
        self._batcher = batcher

    async def encode(self, texts: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Return float32 [n, d] rows of unit length.

        Raises:
            Overloaded, Unavailable, InferenceFailed: the model could not answer.
        """
        return np.stack(await asyncio.gather(*self._batcher.submit(texts)))
