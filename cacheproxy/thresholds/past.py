"""What an operator asks of a threshold's past: how it moved, and which hits were wrong, by id."""

from collections import deque
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from cacheproxy.keys import hex_id

_CHANGES = 48
"""Of each namespace and model, some 5 kB."""

_WRONG_HITS = 200

FoundBy = Literal["check", "judge", "report"]
"""Who found that a hit was wrong: a check in the background, the judge, or a client."""


class ThresholdChange(msgspec.Struct, frozen=True):
    """The threshold from one moment on."""

    at: Annotated[float, Meta(description="Unix time, seconds.")]
    threshold: Annotated[
        float | None, Meta(description="The lowest score that is served; null while closed.")
    ]
    error_upper_bound: float


class WrongHit(msgspec.Struct, frozen=True):
    """A semantic hit that was found to be wrong."""

    at: Annotated[float, Meta(description="When it was found; Unix time, seconds.")]
    model: str
    namespace: Annotated[str, Meta(description="A hash of tenant and name, as in the thresholds.")]
    key: Annotated[str, Meta(description="Of the entry that was served, in hex.")]
    score: Annotated[float | None, Meta(description="Of the neighbour; null if it is not known.")]
    found_by: FoundBy


class ThresholdPast:
    """How one threshold moved, as this process saw it."""

    def __init__(self) -> None:
        self._changes: deque[ThresholdChange] = deque(maxlen=_CHANGES)

    def note(self, at: float, threshold: float | None, upper: float) -> None:
        """Note a threshold, if it is not the one before."""
        told = None if threshold is None else round(float(threshold), 4)
        if not self._changes or self._changes[-1].threshold != told:
            self._changes.append(ThresholdChange(round(at, 1), told, round(float(upper), 5)))

    def changes(self) -> list[ThresholdChange]:
        """Return the changes, the oldest first."""
        return list(self._changes)


class WrongHits:
    """The last wrong hits that this process found, of all models."""

    def __init__(self) -> None:
        self._hits: deque[WrongHit] = deque(maxlen=_WRONG_HITS)

    def add(
        self,
        model: str,
        namespace_id: str,
        key: bytes,
        *,
        score: float | None,
        found_by: FoundBy,
        at: float,
    ) -> None:
        """Note a hit that was found to be wrong at a time (Unix, seconds)."""
        told = None if score is None else round(float(score), 4)
        hit = WrongHit(round(at, 1), model, hex_id(namespace_id), key.hex(), told, found_by)
        self._hits.append(hit)

    def last(self) -> list[WrongHit]:
        """Return them, the oldest first."""
        return list(self._hits)
