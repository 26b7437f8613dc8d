"""What a judge said, in one namespace of one model: labels, their controls, and wrong pairs.

Bounded windows of the latest items. An item has a random id, so that servers merge what they have
as sets: the union, without the oldest ones. Old verdicts leave as new ones come, and after a time.
A label keeps its pair's features, and no text, so that it can be scored again by another model.
"""

import struct
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cacheproxy.thresholds.bands import BANDS

FEATURES = 18
"""Numbers that describe a pair of questions; the first one is its cosine."""

_LABELS = 2_048
_CONTROLS = 768
"""Of all kinds together; an eighth of a label's size each."""

_TRAFFIC = 50_000.0
"""Texts; when there are more, all weigh half."""

MAX_AGE_S = 30 * 86_400.0
"""Older verdicts say little of a model behind a name that is updated in place."""


class Outcome(IntEnum):
    """What the judge made of a pair, after as many questions as it takes."""

    ACCEPTED = 0
    REJECTED = 1
    UNREADABLE = 2
    NONE = 3
    """It was not asked."""


class Kind(IntEnum):
    """A kind of pair whose verdict is known, or of readable replies that are counted."""

    HARD = 0
    """A shipped pair that looks right and is wrong."""
    TRAFFIC = 1
    """A changed question of the traffic, or a near one that asks about another number or date."""
    INJECTED = 2
    """A shipped wrong pair that tells the judge to accept it."""
    PAIR = 3
    """A pair of the traffic: kept only to count unreadable replies."""
    OWN = 4
    """A fresh answer and its own question: kept only to count unreadable replies."""


LABEL = np.dtype(
    [
        ("id", "<u8"),
        ("at", "<f8"),
        ("weight", "<f4"),
        ("half", "u1"),
        ("is_rejected", "u1"),
        ("is_judged", "u1"),
        ("control", "u1"),
        ("features", "<f2", (FEATURES,)),
    ]
)
"""A pair of the traffic that has a verdict.

`at` is Unix time, seconds; `weight` how many texts of its band of cosines it stands for, compared
with other labels of the band; `half` 0 or 1, by a hash of the neighbour; `is_judged` 0 where both
answers were seen to be the same without the judge; `control` the `Outcome` of the question's own
fresh answer.
"""

CONTROL = np.dtype([("id", "<u8"), ("at", "<f8"), ("kind", "u1"), ("outcome", "u1")])
"""A control of some `Kind`, with the `Outcome`."""

Items = NDArray[np.void]

_HEADER = struct.Struct("<4sHHIIIQ")
_MAGIC = b"CPJE"
_VERSION = 3


def _nothing(kind: np.dtype[Any]) -> Items:
    return np.zeros(0, kind)


def _latest(items: Items, most: int) -> Items:
    """Return at most so many items, each id once, the oldest ones left out, in order of time."""
    _, first = np.unique(items["id"], return_index=True)
    items = items[first]
    items = items[np.lexsort((items["id"], items["at"]))]
    return items[-most:]


@dataclass
class Evidence:
    """Windows of labels and controls.

    Attributes:
        epoch: raised whenever the evidence was thrown away.
        labels: `LABEL` [at most 2,048], in order of time.
        controls: `CONTROL` [at most 768], likewise.
        traffic: float64 [BANDS], texts with a neighbour, by the band of its cosine.
        seen: labels of this epoch, those that were left out since counted in.
    """

    epoch: int = 0
    labels: Items = field(default_factory=lambda: _nothing(LABEL))
    controls: Items = field(default_factory=lambda: _nothing(CONTROL))
    traffic: NDArray[np.float64] = field(default_factory=lambda: np.zeros(BANDS))
    seen: int = 0

    def add(self, other: "Evidence") -> None:
        """Take another one's items, as far as they are not known; traffic is left alone."""
        if len(other.labels):
            # By sorting: NumPy 2.0's table overflows where ids lie close together above 2**63.
            known = np.isin(other.labels["id"], self.labels["id"], kind="sort")
            self.seen += int((~known).sum())
            self.labels = _latest(np.concatenate([self.labels, other.labels]), _LABELS)
        if len(other.controls):
            self.controls = _latest(np.concatenate([self.controls, other.controls]), _CONTROLS)

    def add_traffic(self, traffic: NDArray[np.float64]) -> None:
        """Count texts; when there are many, all weigh half, so that old ones are forgotten."""
        self.traffic = self.traffic + traffic
        if self.traffic.sum() > _TRAFFIC:
            self.traffic /= 2

    def expire(self, now: float) -> None:
        """Drop what is older than `MAX_AGE_S` at a Unix time."""
        self.labels = self.labels[self.labels["at"] > now - MAX_AGE_S]
        self.controls = self.controls[self.controls["at"] > now - MAX_AGE_S]

    def forget(self) -> None:
        """Throw everything away."""
        self.epoch += 1
        self.seen = 0
        self.labels, self.controls = _nothing(LABEL), _nothing(CONTROL)
        self.traffic = self.traffic * 0.1

    def __bool__(self) -> bool:
        """Return whether there is anything."""
        return bool(len(self.labels) or len(self.controls) or self.traffic.any())

    def pack(self) -> bytes:
        """Return the evidence as bytes: at most 130 kB."""
        head = _HEADER.pack(
            *(_MAGIC, _VERSION, FEATURES, self.epoch, len(self.labels), len(self.controls)),
            self.seen,
        )
        traffic = self.traffic.astype("<f8").tobytes()
        return head + traffic + self.labels.tobytes() + self.controls.tobytes()

    @classmethod
    def unpack(cls, data: bytes) -> "Evidence | None":
        """Return the evidence that was packed; None if it is none of this version."""
        if len(data) < _HEADER.size:
            return None
        magic, version, features, epoch, labels, controls, seen = _HEADER.unpack_from(data)
        if (magic, version, features) != (_MAGIC, _VERSION, FEATURES):
            return None
        start = _HEADER.size + 8 * BANDS
        middle = start + labels * LABEL.itemsize
        if len(data) != middle + controls * CONTROL.itemsize:
            return None
        found = cls(
            epoch,
            _latest(np.frombuffer(data[start:middle], LABEL), _LABELS),
            _latest(np.frombuffer(data[middle:], CONTROL), _CONTROLS),
            np.frombuffer(data[_HEADER.size : start], "<f8").astype(np.float64),
            seen,
        )
        return found if found._is_sane() else None

    def _is_sane(self) -> bool:
        labels, controls = self.labels, self.controls
        return bool(
            ((self.traffic >= 0) & (self.traffic < 1e15)).all()
            and np.isfinite(labels["features"]).all()
            and np.isfinite(labels["at"]).all()
            and np.isfinite(controls["at"]).all()
            and ((labels["weight"] > 0) & (labels["weight"] <= 1e4)).all()
            and (labels["half"] <= 1).all()
            and (labels["is_rejected"] <= 1).all()
            and (labels["is_judged"] <= 1).all()
            and (labels["control"] <= Outcome.NONE).all()
            and (controls["kind"] <= Kind.OWN).all()
            and (controls["outcome"] <= Outcome.UNREADABLE).all()
        )
