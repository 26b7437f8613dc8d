"""Scores of reranked documents as entries: their record, its binary form, and how it is made.

A record is sealed as those of embeddings are (`records`), with the magic "CPS1" and this content:

    created_at f64 | expires_at f64 | tokens u32 | score f64

A score is kept as the model gave it, before any sigmoid, and in full: one of an upstream is
answered to the last digit. There is no semantic tier for scores, as documents that are much alike
may answer a query quite differently.
"""

import math
import struct
from typing import NamedTuple

from cacheproxy.errors import RecordError
from cacheproxy.inference.engine import Inferred
from cacheproxy.inference.queue import Vector
from cacheproxy.records import OWNER, seal, unseal
from cacheproxy.routes.form import EntryOf, ItemForm

MAGIC = b"CPS1"
_FORM = struct.Struct(OWNER + "ddId")


class ScoreRecord(NamedTuple):
    """One pair's cached score.

    Attributes:
        namespace_id: 32 hex characters.
        key: the exact tier's key, 32 bytes.
        created_at: Unix time at which inference answered, seconds.
        expires_at: Unix time from which the entry may not be served, seconds.
        tokens: tokens that the model read for this pair.
        score: as the model gave it.
    """

    namespace_id: str
    key: bytes
    created_at: float
    expires_at: float
    tokens: int
    score: float

    @property
    def size_bytes(self) -> int:
        """The score's bytes."""
        return 8


def pack(record: ScoreRecord) -> bytes:
    """Return the record's bytes."""
    namespace_id, *content = record
    return seal(_FORM.pack(MAGIC, bytes.fromhex(namespace_id), *content))


def unpack(data: bytes, *, namespace_id: str, key: bytes) -> ScoreRecord:
    """Return the record, checked to be whole, of this namespace's key, and a finite score.

    Raises:
        RecordError: anything else; the caller treats the entry as a miss.
    """
    body = unseal(data, MAGIC, namespace_id=namespace_id, key=key)
    if len(body) != _FORM.size:
        raise RecordError(f"a record of {len(data)} bytes cannot hold a score")
    _, _, _, created_at, expires_at, tokens, score = _FORM.unpack(body)
    if not math.isfinite(score):
        raise RecordError("the record's score is not finite")
    return ScoreRecord(namespace_id, key, created_at, expires_at, tokens, score)


def is_score(result: Vector) -> bool:
    """Return whether a model's result, float32 [1], may be served as a score."""
    return math.isfinite(float(result[0]))


def _record(entry: EntryOf, inferred: Inferred) -> ScoreRecord:
    return ScoreRecord(*entry, inferred.tokens, float(inferred.vector[0]))


SCORES = ItemForm("rerank", _record, pack)
"""Scores: without a semantic tier."""
