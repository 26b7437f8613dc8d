"""A kept completion told as a stream, as an upstream would: a chunk for the role, one with the
text, one that says that it ended, one with the usage if that was asked for, and `[DONE]`.
"""

from typing import Any

import msgspec

_DECODER = msgspec.json.Decoder(dict[str, Any])

DONE = b"data: [DONE]\n\n"


def as_events(body: bytes, *, with_usage: bool) -> bytes:
    """Return the events that tell a `chat.completion` in JSON, `[DONE]` included."""
    answer = _DECODER.decode(body)
    (choice,) = answer.pop("choices")
    usage = answer.pop("usage", None)
    message = choice.pop("message")
    role = message.pop("role", "assistant")
    finish_reason = choice.pop("finish_reason")
    told = {name: value for name, value in message.items() if value is not None}
    if with_usage:
        answer["usage"] = None

    def chunk(delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
        choices = [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}]
        return event({**answer, "object": "chat.completion.chunk", "choices": choices})

    chunks = [chunk({"role": role, "content": ""}), chunk(told), chunk({}, finish_reason)]
    if with_usage:
        last = {**answer, "object": "chat.completion.chunk", "choices": [], "usage": usage}
        chunks.append(event(last))
    return b"".join((*chunks, DONE))


def event(value: Any) -> bytes:
    """Return one event that holds a JSON value."""
    return b"data: %b\n\n" % msgspec.json.encode(value)
