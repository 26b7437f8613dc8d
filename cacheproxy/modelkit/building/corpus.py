"""The shipped texts: one part for calibrating a model, and a held-out part for its gate.

`models/calibration/` has texts.jsonl, one object a line with `text` and `source`, and pairs.jsonl,
`a`, `b` and their similarity `score`, 0 to 5; its NOTICE gives the sources' licences. The part to
which a text belongs depends on its own bytes only, so that adding texts moves no other text.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cacheproxy.errors import ModelError
from cacheproxy.inference.tokenizer import Tokenizer
from cacheproxy.modelkit.manifest import Prefixes

_HELD_OUT_SHARE = 0.25
"""A quarter, about 300 texts, so that the gate's first percentile is more than one text."""


_SENTENCE_END = re.compile(r"[.?!]\s+")
_LEAST_QUERY, _LEAST_DOCUMENT = 30, 60
"""Minimum characters: shorter texts are too unspecific for a search."""


@dataclass(frozen=True)
class Pair:
    """Two texts and how alike they are, from 0 (unrelated) to 5 (the same meaning)."""

    a: str
    b: str
    score: float


@dataclass(frozen=True)
class Search:
    """Queries, and documents to find: the first ones belong to the queries, the others distract."""

    queries: tuple[str, ...]
    documents: tuple[str, ...]


@dataclass(frozen=True)
class Corpus:
    """Texts by their use."""

    calibration: tuple[str, ...]
    held_out: tuple[str, ...]
    pairs: tuple[Pair, ...]


def read_corpus(folder: Path) -> Corpus:
    """Return the corpus under a folder of manifests.

    Raises:
        ModelError: it is missing or damaged.
    """
    try:
        texts = [str(row["text"]) for row in _rows(folder / "calibration" / "texts.jsonl")]
        pairs = [
            Pair(str(row["a"]), str(row["b"]), float(row["score"]))
            for row in _rows(folder / "calibration" / "pairs.jsonl")
        ]
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"the calibration texts cannot be read: {error}") from None
    return Corpus(
        calibration=tuple(text for text in texts if not _is_held_out(text)),
        held_out=tuple(text for text in texts if _is_held_out(text)),
        pairs=tuple(pairs),
    )


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _is_held_out(text: str) -> bool:
    return hashlib.sha256(text.encode()).digest()[0] < 256 * _HELD_OUT_SHARE


def make_search(corpus: Corpus) -> Search:
    """Return a search made of texts with several sentences: the first is the query for the others.

    Queries come from held-out texts only; the documents of the other texts are distractors.
    """
    asked = list(_split(corpus.held_out))
    others = [document for _, document in _split(corpus.calibration)]
    return Search(
        queries=tuple(query for query, _ in asked),
        documents=(*(document for _, document in asked), *others),
    )


def make_pairs(
    texts: Iterable[str], distractors: int, sentences: int = 1
) -> list[list[tuple[str, str]]]:
    """Return, for up to `sentences` sentences of each text that suits, the pairs with documents.

    The first document is the rest of the sentence's own text, the others are those of `distractors`
    texts that follow, in a circle, without their first sentences.
    """
    suitable = [text for text in texts if any(_split([text]))]
    others = [document for _, document in _split(suitable)]
    return [
        [
            (query, own),
            *((query, others[(i + step) % len(others)]) for step in range(1, distractors + 1)),
        ]
        for i, text in enumerate(suitable)
        for query, own in islice(_sentences(text), sentences)
    ]


def _sentences(text: str) -> Iterator[tuple[str, str]]:
    """Yield the sentences of a text that make a query, each with the rest of the text."""
    yield from _split([text])
    ends = [0, *(found.end() for found in _SENTENCE_END.finditer(text)), len(text)]
    for begin, end in pairwise(ends[1:]):
        query, rest = text[begin:end].rstrip(), text[:begin] + text[end:]
        if len(query) >= _LEAST_QUERY and len(rest) >= _LEAST_DOCUMENT:
            yield query, rest


def _split(texts: Iterable[str]) -> Iterator[tuple[str, str]]:
    for text in texts:
        query, *rest = _SENTENCE_END.split(text, maxsplit=1)
        if len(query) >= _LEAST_QUERY and rest and len(rest[0]) >= _LEAST_DOCUMENT:
            yield query, rest[0]


def add_prefixes(texts: Iterable[str], prefixes: Prefixes) -> list[str]:
    """Return the texts as they are served, alternately as a query and as a document."""
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
