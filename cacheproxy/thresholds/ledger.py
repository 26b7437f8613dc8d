"""The evidence of one namespace under one model: what came, what was checked, what was wrong.

Every text that found a neighbour is traffic of its score's band. A label is a neighbour that was
compared with the text's true vector; it counts as an error for each min_similarity that the two
fall short of, so that one label teaches about all of them.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from cacheproxy.thresholds.bands import BANDS

_HEADER = struct.Struct("<4sBBHd")
_MAGIC = b"CPLG"
_VERSION = 1


def _zeros() -> list[float]:
    return [0.0] * BANDS


@dataclass(slots=True)
class Ledger:
    """Counts by band, weighed by their age.

    Attributes:
        min_similarities: rising; what errors are counted against.
        epoch: raised whenever the evidence was thrown away.
        traffic: texts with a neighbour in the band.
        labels: those that were checked.
        errors: those that were wrong, for each of `min_similarities`.
    """

    min_similarities: tuple[float, ...]
    epoch: int = 0
    traffic: list[float] = field(default_factory=_zeros)
    labels: list[float] = field(default_factory=_zeros)
    errors: list[list[float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Start without errors unless some are given."""
        if not self.errors:
            self.errors = [_zeros() for _ in self.min_similarities]

    def label(self, band: int, similarity: float) -> None:
        """Take the outcome of one check."""
        self.labels[band] += 1
        for errors, least in zip(self.errors, self.min_similarities, strict=True):
            errors[band] += similarity < least

    def age(self, factor: float) -> None:
        """Let all counts weigh less."""
        for counts in (self.traffic, self.labels, *self.errors):
            counts[:] = [factor * count for count in counts]

    def add(self, other: "Ledger") -> None:
        """Take the counts of another ledger of the same min_similarities."""
        for counts, more in zip(self._counts(), other._counts(), strict=True):
            counts[:] = [count + extra for count, extra in zip(counts, more, strict=True)]

    def forget(self) -> None:
        """Throw the evidence away, and keep a little of the traffic as a weight to start from."""
        self.epoch += 1
        self.traffic = [0.1 * count for count in self.traffic]
        self.labels = _zeros()
        self.errors = [_zeros() for _ in self.min_similarities]

    def pack(self) -> bytes:
        """Return the ledger as bytes: 1 kB for three min_similarities."""
        head = _HEADER.pack(_MAGIC, _VERSION, len(self.errors), BANDS, float(self.epoch))
        numbers = [*self.min_similarities, *(count for row in self._counts() for count in row)]
        return head + struct.pack(f"<{len(numbers)}f", *numbers)

    @classmethod
    def unpack(cls, data: bytes, min_similarities: Sequence[float]) -> "Ledger | None":
        """Return the ledger that was packed; None if it is no ledger of these min_similarities."""
        kinds = len(min_similarities)
        length = kinds + (2 + kinds) * BANDS
        if len(data) != _HEADER.size + 4 * length:
            return None
        magic, version, packed_kinds, bands, epoch = _HEADER.unpack_from(data)
        if (magic, version, packed_kinds, bands) != (_MAGIC, _VERSION, kinds, BANDS):
            return None
        numbers = struct.unpack_from(f"<{length}f", data, _HEADER.size)
        wanted = struct.unpack(f"<{kinds}f", struct.pack(f"<{kinds}f", *min_similarities))
        if numbers[:kinds] != wanted or not all(0 <= number < 1e12 for number in numbers[kinds:]):
            return None
        rows = [list(numbers[at : at + BANDS]) for at in range(kinds, length, BANDS)]
        return cls(tuple(min_similarities), int(epoch), rows[0], rows[1], rows[2:])

    def _counts(self) -> list[list[float]]:
        return [self.traffic, self.labels, *self.errors]
