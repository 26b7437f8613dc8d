"""The fixed binary form in which stores keep a completion: a record (see `records`) with the magic
"CPC2" and this content, all little-endian:

    created_at f64 | fresh_until f64 | expires_at f64 | took_s f64 | prompt_tokens u32
    | completion_tokens u32 | has_usage u8 | model's bytes u16 | question's bytes u16
    | body's bytes u32 | model | question | body
"""

import struct
from dataclasses import dataclass

from cacheproxy.errors import RecordError
from cacheproxy.records import OWNER, seal, unseal
from cacheproxy.routes.dialects.text import text_of

_MAGIC = b"CPC2"
_HEADER = struct.Struct(OWNER + "ddddIIBHHI")


@dataclass(frozen=True, slots=True)
class CompletionRecord:
    """One cached completion.

    Attributes:
        namespace_id: 32 hex characters.
        key: the exact tier's key, 32 bytes.
        created_at: Unix time at which the upstream had answered, seconds.
        fresh_until: Unix time from which it is stale, seconds.
        expires_at: Unix time from which it may not be served, stale or not, seconds.
        took_s: the time that the upstream took for the whole answer, seconds.
        prompt_tokens, completion_tokens: as the upstream counted them; 0 where it did not say.
        has_usage: whether it said.
        model: as it was asked for.
        body: the answer object of the request's API, as JSON.
        question: the text of the last user turn, at most 65,535 bytes; empty if others may not
            find the entry by it.
    """

    namespace_id: str
    key: bytes
    created_at: float
    fresh_until: float
    expires_at: float
    took_s: float
    prompt_tokens: int
    completion_tokens: int
    has_usage: bool
    model: str
    body: bytes
    question: str = ""

    @property
    def size_bytes(self) -> int:
        """The bytes of body, model and question, about."""
        return len(self.body) + len(self.model) + len(self.question)

    @property
    def text(self) -> str:
        """The answer's text."""
        return text_of(self.body)


def pack(record: CompletionRecord) -> bytes:
    """Return the record's bytes."""
    model, question = record.model.encode(), record.question.encode()
    header = _HEADER.pack(
        _MAGIC,
        bytes.fromhex(record.namespace_id),
        record.key,
        record.created_at,
        record.fresh_until,
        record.expires_at,
        record.took_s,
        record.prompt_tokens,
        record.completion_tokens,
        record.has_usage,
        len(model),
        len(question),
        len(record.body),
    )
    return seal(header + model + question + record.body)


def unpack(data: bytes, *, namespace_id: str, key: bytes) -> CompletionRecord:
    """Return the record, checked to be whole and of this namespace's key.

    Raises:
        RecordError: anything else; the caller treats the entry as a miss.
    """
    whole = unseal(data, _MAGIC, namespace_id=namespace_id, key=key)
    if len(whole) < _HEADER.size:
        raise RecordError(f"a completion cannot be in {len(data)} bytes")
    *said, has_usage, model_bytes, question_bytes, body_bytes = _HEADER.unpack_from(whole)[3:]
    model_end = _HEADER.size + model_bytes
    question_end = model_end + question_bytes
    if len(whole) != question_end + body_bytes or has_usage > 1:
        raise RecordError("the record is not as it says")
    try:
        model = whole[_HEADER.size : model_end].decode()
        question = whole[model_end:question_end].decode()
    except UnicodeDecodeError:
        raise RecordError("the record's model or question is no text") from None
    created_at, fresh_until, expires_at, took_s, prompt_tokens, completion_tokens = said
    return CompletionRecord(
        namespace_id=namespace_id,
        key=key,
        created_at=created_at,
        fresh_until=fresh_until,
        expires_at=expires_at,
        took_s=took_s,
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        has_usage=bool(has_usage),
        model=model,
        body=whole[question_end:],
        question=question,
    )
