"""The evidence of one namespace under one model: counts of traffic, labels and errors.

Every text that found a neighbour is traffic of its score's band. A label is a neighbour that was
compared with the text's true vector; it counts as an error for each min_similarity that the cosine
does not reach, so one label is evidence for all of them.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from cacheproxy.thresholds.bands import BANDS

_HEADER = struct.Struct("<4sBBHd")
_MAGIC = b"CPLG"
_VERSION = 1

_MOST_EPOCH = 2**53
"""Up to here a double counts exactly."""


def _zeros() -> list[float]:
    return [0.0] * BANDS


@dataclass(slots=True)
class Ledger:
    """Counts by band, weighted by age.

    Attributes:
        min_similarities: ascending; errors are counted for each.
        epoch: increased whenever the evidence is discarded.
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
        """Add the outcome of one check."""
        self.labels[band] += 1
        for errors, least in zip(self.errors, self.min_similarities, strict=True):
            errors[band] += similarity < least

    def age(self, factor: float) -> None:
        """Reduce the weight of all counts."""
        for counts in (self.traffic, self.labels, *self.errors):
            counts[:] = [factor * count for count in counts]

    def add(self, other: "Ledger") -> None:
        """Add the counts of another ledger with the same min_similarities."""
        for counts, more in zip(self._counts(), other._counts(), strict=True):
            counts[:] = [count + extra for count, extra in zip(counts, more, strict=True)]

    def forget(self) -> None:
        """Discard the evidence, and keep a little of the traffic as an initial weight."""
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
        """Return the packed ledger; None if it is not a ledger of these min_similarities."""
        kinds = len(min_similarities)
        length = kinds + (2 + kinds) * BANDS
        if len(data) != _HEADER.size + 4 * length:
            return None
        magic, version, packed_kinds, bands, epoch = _HEADER.unpack_from(data)
        if (magic, version, packed_kinds, bands) != (_MAGIC, _VERSION, kinds, BANDS):
            return None
        if not 0 <= epoch < _MOST_EPOCH:
            return None
        numbers = struct.unpack_from(f"<{length}f", data, _HEADER.size)
        wanted = struct.unpack(f"<{kinds}f", struct.pack(f"<{kinds}f", *min_similarities))
        if numbers[:kinds] != wanted or not all(0 <= number < 1e12 for number in numbers[kinds:]):
            return None
        rows = [list(numbers[at : at + BANDS]) for at in range(kinds, length, BANDS)]
        return cls(tuple(min_similarities), int(epoch), rows[0], rows[1], rows[2:])

    def _counts(self) -> list[list[float]]:
        return [self.traffic, self.labels, *self.errors]
