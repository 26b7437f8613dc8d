"""The entries of an items route: how a record is made of a result, packed and compared."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import numpy as np

from cacheproxy.inference.engine import Inferred, InputTokenizer
from cacheproxy.inference.input import Input
from cacheproxy.keys import key_scope
from cacheproxy.records import EmbeddingRecord, Record, pack

R = TypeVar("R", bound=Record)


class EntryOf(NamedTuple):
    """Whose entry a record is, and how long it lives (Unix time, seconds)."""

    namespace_id: str
    key: bytes
    created_at: float
    expires_at: float


@dataclass(frozen=True, slots=True)
class ItemForm(Generic[R]):
    """The records of one route.

    Attributes:
        route: part of every key, so that entries of different routes never meet.
        record: makes the record of a result.
        pack: encodes a record for the store.
        similarity: how right a neighbour's record would have been for the true result: 1 is right.
            None: the route has no semantic tier.
    """

    route: str
    record: Callable[[EntryOf, Inferred], R]
    pack: Callable[[R], bytes]
    similarity: Callable[[R, Inferred], float] | None = None


def _embedding_record(entry: EntryOf, inferred: Inferred) -> EmbeddingRecord:
    vector = np.ascontiguousarray(inferred.vector, "<f4").tobytes()
    return EmbeddingRecord(
        entry.namespace_id,
        entry.key,
        entry.created_at,
        entry.expires_at,
        inferred.tokens,
        vector,
    )


def _cosine(neighbour: EmbeddingRecord, inferred: Inferred) -> float:
    served = np.frombuffer(neighbour.vector, "<f4")
    # The vectors of an upstream need not have unit length.
    lengths = float(np.linalg.norm(served) * np.linalg.norm(inferred.vector))
    return float(np.dot(served, inferred.vector)) / lengths


EMBEDDINGS = ItemForm("embeddings", _embedding_record, pack, _cosine)
"""Embeddings: a neighbour is as right as its cosine to the true vector."""


def local_key(
    route: str, tokenizer: InputTokenizer, fingerprint: str, namespace_id: str, given: Input
) -> bytes:
    """Return the key [32 bytes] of an input's entry of a route, under a local model."""
    (ids,) = tokenizer.read([given])
    return key_scope(namespace_id, route, fingerprint).of_ids(ids)
