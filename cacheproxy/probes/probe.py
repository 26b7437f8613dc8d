"""The interface between the semantic tier and encoders that are cheaper than inference."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Probe(Protocol):
    """Maps a text's token ids to the vector that the KNN lookup compares.

    Attributes:
        name: of the recipe; probes of different names are never compared.
    """

    name: str

    async def encode(self, texts: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Return float32 [n, d] rows of unit length; an all-zero row if the ids give no probe."""
