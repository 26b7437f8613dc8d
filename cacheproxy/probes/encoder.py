"""Probes that run a network: the model's first layer, or another, smaller model.

The shallow probe (first layer, pooling, and a linear map) takes a sixth of the time of an
inference; `modelkit/building/shallow.py` explains how it is built and how good it is. Unlike the
static probe, both are sensitive to word order.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cacheproxy.concurrency.job_thread import JobThread

_GROUP_TOKENS = 256
"""Tokens in one call: larger calls are no faster and delay other requests."""

_JOB_TOKENS = 1_024
"""Tokens in one job of the thread, some 7 ms: then another tenant's texts may have their turn."""


Encode = Callable[[NDArray[np.int64]], NDArray[np.float32]]
Translate = Callable[[Sequence[Sequence[int]]], Sequence[Sequence[int]]]


class _Group(NamedTuple):
    """Vectors, float32 [n, d], and the places of their texts."""

    places: list[int]
    vectors: NDArray[np.float32]


class EncoderProbe:
    """A `Probe` that runs on a thread of its own."""

    def __init__(self, name: str, encode: Encode, translate: Translate | None = None) -> None:
        """Prepare.

        Args:
            name: of the recipe.
            encode: maps int64 [n, tokens] ids of one length to float32 [n, d] unit rows.
            translate: converts the model's ids to the network's if the two differ; returns none for
                a text that is too long for the network.
        """
        self.name = name
        self._encode = encode
        self._translate = translate
        self._dimensions = 1  # until the first vector
        self._thread = JobThread("cacheproxy-probe")

    async def encode(self, texts: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Return float32 [n, d] rows of unit length; an all-zero row for a text without ids."""
        groups: list[_Group] = []
        for places in _jobs(texts):
            groups += await self._thread.run(partial(self._encode_some, texts, places))
        if groups:
            self._dimensions = groups[0].vectors.shape[1]
        result: NDArray[np.float32] = np.zeros((len(texts), self._dimensions), np.float32)
        for group in groups:
            result[group.places] = group.vectors
        return result

    def _encode_some(self, texts: Sequence[Sequence[int]], places: Sequence[int]) -> list[_Group]:
        """Return the vectors of those of the texts that have any."""
        chosen = [texts[place] for place in places]
        if self._translate is not None:
            chosen = list(self._translate(chosen))
        by_length: dict[int, list[int]] = {}
        for i, ids in enumerate(chosen):
            if ids:
                by_length.setdefault(len(ids), []).append(i)
        groups: list[_Group] = []
        for length, members in by_length.items():
            size = max(1, _GROUP_TOKENS // length)
            for start in range(0, len(members), size):
                group = members[start : start + size]
                vectors = self._encode(np.array([chosen[i] for i in group], np.int64))
                groups.append(_Group([places[i] for i in group], vectors))
        return groups


def _jobs(texts: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Yield the places of the texts in parts, those of one length together."""
    job: list[int] = []
    tokens = 0
    for place in sorted(range(len(texts)), key=lambda place: len(texts[place])):
        if job and tokens + len(texts[place]) > _JOB_TOKENS:
            yield job
            job, tokens = [], 0
        job.append(place)
        tokens += len(texts[place])
    yield job
