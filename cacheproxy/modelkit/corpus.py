"""The shipped texts: on one part a model is calibrated, on the held-out part its gate is measured.

`models/calibration/texts.jsonl`, one object a line with `text` and `source`; its NOTICE gives the
sources' licences. Which part a text belongs to depends on its own bytes only, so that adding texts
moves no other text across.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cacheproxy.errors import ModelError
from cacheproxy.inference.tokenizer import Tokenizer
from cacheproxy.modelkit.manifest import Prefixes

_HELD_OUT_SHARE = 0.25
"""A quarter: some 300 texts, enough that the first percentile of the gate is not one text."""


@dataclass(frozen=True)
class Corpus:
    """Texts by their use."""

    calibration: tuple[str, ...]
    held_out: tuple[str, ...]


def read_corpus(folder: Path) -> Corpus:
    """Return the corpus under a folder of manifests.

    Raises:
        ModelError: it is missing or damaged.
    """
    path = folder / "calibration" / "texts.jsonl"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        texts = [str(json.loads(line)["text"]) for line in lines]
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"the calibration texts cannot be read: {error}") from None
    return Corpus(
        calibration=tuple(text for text in texts if not _is_held_out(text)),
        held_out=tuple(text for text in texts if _is_held_out(text)),
    )


def _is_held_out(text: str) -> bool:
    return hashlib.sha256(text.encode()).digest()[0] < 256 * _HELD_OUT_SHARE


def add_prefixes(texts: Iterable[str], prefixes: Prefixes) -> list[str]:
    """Return the texts as they are served: as a query and as a document by turns."""
    roles = prefixes.query, prefixes.document
    return [roles[i % 2] + text for i, text in enumerate(texts)]


def group_by_length(texts: Iterable[list[int]]) -> list[NDArray[np.int64]]:
    """Return the id lists as int64 [n, tokens] arrays, one for each length, shortest first."""
    by_length: dict[int, list[list[int]]] = {}
    for ids in texts:
        by_length.setdefault(len(ids), []).append(ids)
    return [np.array(by_length[length], np.int64) for length in sorted(by_length)]


def tokenize(texts: Iterable[str], tokenizer_json: bytes, max_tokens: int) -> list[list[int]]:
    """Return each text's ids, as the server makes them."""
    return Tokenizer(tokenizer_json, max_tokens).encode(list(texts))
