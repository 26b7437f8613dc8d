"""Probes that run a network: the model's first layer, or another, smaller model.

The shallow probe (first layer, pooling, and a linear map) takes a sixth of the time of an
inference; `modelkit/building/shallow.py` explains how it is built and how good it is. Unlike the
static probe, both are sensitive to word order.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from cacheproxy.concurrency.job_thread import JobThread

_GROUP_TOKENS = 256
"""Tokens in one call: larger calls are no faster and delay other requests."""


Encode = Callable[[NDArray[np.int64]], NDArray[np.float32]]
Translate = Callable[[Sequence[Sequence[int]]], Sequence[Sequence[int]]]


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
        return await self._thread.run(partial(self._encode_all, texts))

    def _encode_all(self, texts: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        if self._translate is not None:
            texts = self._translate(texts)
        by_length: dict[int, list[int]] = {}
        for i, ids in enumerate(texts):
            if ids:
                by_length.setdefault(len(ids), []).append(i)
        parts: list[NDArray[np.float32]] = []
        order: list[int] = []
        for length, places in by_length.items():
            size = max(1, _GROUP_TOKENS // length)
            for start in range(0, len(places), size):
                group = places[start : start + size]
                parts.append(self._encode(np.array([texts[i] for i in group], np.int64)))
                order += group
        if parts:
            self._dimensions = parts[0].shape[1]
        result: NDArray[np.float32] = np.zeros((len(texts), self._dimensions), np.float32)
        if parts:
            result[order] = np.concatenate(parts)
        return result
