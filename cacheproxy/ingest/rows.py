"""What goes in and what comes out of ingestion: rows of files, their vectors, and refusals."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cacheproxy.errors import CacheproxyError

RowId = int | str
Vector = NDArray[np.float32]


class Row(NamedTuple):
    """One row of the input.

    Attributes:
        number: counted from 0 over all files.
        id: what the id column says, or the number.
        file: where it stands.
        text: what is to be embedded; None if the row has none.
        reason: why it has none.
    """

    number: int
    id: RowId
    file: str
    text: str | None
    reason: str = ""


class Embedded(NamedTuple):
    """One row, answered.

    Attributes:
        row: the row.
        vector: float32 [dimensions]; None if the row cannot be embedded.
        reason: why it cannot.
    """

    row: Row
    vector: Vector | None
    reason: str = ""


class IngestStopped(CacheproxyError):
    """The work could not be finished now; what is done is kept, and it can be taken up again."""
