"""What a record says of its entry besides what it was made for: no text, no vector, no answer."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from cacheproxy import records
from cacheproxy.errors import RecordError
from cacheproxy.records import EmbeddingRecord
from cacheproxy.routes import scores
from cacheproxy.routes.chat import record as completions
from cacheproxy.routes.chat.record import CompletionRecord


class EntryFacts(msgspec.Struct, kw_only=True):
    """The facts in a record."""

    kind: Literal["embedding", "score", "completion"]
    created_at: Annotated[float, Meta(description="Unix time, seconds.")]
    expires_at: Annotated[float, Meta(description="Unix time, seconds.")]
    fresh_until: Annotated[
        float, Meta(description="Unix time; a completion may be served stale after it.")
    ]
    tokens: Annotated[int, Meta(description="Tokens that the model read; 0 if it did not say.")]
    completion_tokens: int = 0
    dimensions: int | None = None
    model: Annotated[str | None, Meta(description="As the record has it.")] = None


def read_facts(data: bytes, *, namespace_id: str, key: bytes) -> EntryFacts | None:
    """Return the facts in a record's bytes; None if they are no whole record of this entry."""
    try:
        dimensions = records.dimensions_in(data)
        if dimensions is not None:
            return facts_of(
                records.unpack(data, namespace_id=namespace_id, key=key, dimensions=dimensions)
            )
        if data.startswith(scores.MAGIC):
            return facts_of(scores.unpack(data, namespace_id=namespace_id, key=key))
        return facts_of(completions.unpack(data, namespace_id=namespace_id, key=key))
    except RecordError:
        return None


def facts_of(record: Any) -> EntryFacts:
    """Return the facts in a record of any kind."""
    if isinstance(record, CompletionRecord):
        return EntryFacts(
            kind="completion",
            created_at=record.created_at,
            expires_at=record.expires_at,
            fresh_until=record.fresh_until,
            tokens=record.prompt_tokens,
            completion_tokens=record.completion_tokens,
            model=record.model,
        )
    is_vector = isinstance(record, EmbeddingRecord)
    return EntryFacts(
        kind="embedding" if is_vector else "score",
        created_at=record.created_at,
        expires_at=record.expires_at,
        fresh_until=record.expires_at,
        tokens=record.tokens,
        dimensions=len(record.vector) // 4 if is_vector else None,
    )
