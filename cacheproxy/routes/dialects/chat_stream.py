"""Streams of chat completions: chunks put together, and a kept completion sent as chunks.

A kept one is sent as a chunk for the role, one with the text, one that says that it ended, one with
the usage if that was asked for, and `[DONE]`.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from cacheproxy.routes.dialects.completion import Completion, completion_of
from cacheproxy.routes.dialects.sse import data_event, data_of, object_of
from cacheproxy.routes.dialects.text import text_in

_DECODER = msgspec.json.Decoder(dict[str, Any])

_USAGE = ("prompt_tokens", "completion_tokens")

_ACTS = ("tool_calls", "function_call", "refusal", "audio")
"""Members of a message that make it more, or less, than an answer in words."""

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
        return data_event({**answer, "object": "chat.completion.chunk", "choices": choices})

    chunks = [chunk({"role": role, "content": ""}), chunk(told), chunk({}, finish_reason)]
    if with_usage:
        last = {**answer, "object": "chat.completion.chunk", "choices": [], "usage": usage}
        chunks.append(data_event(last))
    return b"".join((*chunks, DONE))


def keepable(answer: dict[str, Any], body: bytes) -> Completion | None:
    """Return an answer and its JSON as what may be kept, or None."""
    if len(answer["choices"]) != 1:
        return None
    (choice,) = answer["choices"]
    message = choice.get("message")
    if choice.get("finish_reason") != "stop" or not isinstance(message, dict):
        return None
    if any(message.get(act) for act in _ACTS):
        return None
    return completion_of(body, text_in(answer), answer.get("usage"), _USAGE)


class ChatAssembler:
    """Puts the chunks of one streamed completion together.

    Attributes:
        is_done: whether the last event, `[DONE]`, has come.
    """

    def __init__(self) -> None:
        self.is_done = False
        self._is_plain = True
        self._answer: dict[str, Any] = {}
        self._choice: dict[str, Any] = {"index": 0}
        self._message: dict[str, Any] = {}
        self._texts: dict[str, list[str]] = {}

    def take_all(self, events: Sequence[bytes]) -> int:
        """Take the next events, up to one that is malformed; return how many were taken."""
        for taken, event in enumerate(events):
            if not self._take(event):
                return taken
        return len(events)

    def _take(self, event: bytes) -> bool:
        data = data_of(event)
        if not data:
            return True
        if data.strip() == b"[DONE]":
            self.is_done = True
            return True
        chunk = object_of(data)
        if chunk is None:
            self._is_plain = False
            return False
        if self.is_done or "error" in chunk:
            self._is_plain = False
        self._add(chunk)
        return True

    def completion(self) -> Completion | None:
        """Return the answer as one completion; None unless it is complete and may be kept."""
        if not (self.is_done and self._is_plain):
            return None
        message = self._message | {name: "".join(parts) for name, parts in self._texts.items()}
        answer = {
            **self._answer,
            "object": "chat.completion",
            "choices": [{**self._choice, "message": {"role": "assistant", **message}}],
        }
        return keepable(answer, msgspec.json.encode(answer))

    def _add(self, chunk: dict[str, Any]) -> None:
        choices = chunk.pop("choices", None)
        self._answer |= {name: value for name, value in chunk.items() if value is not None}
        for choice in choices if isinstance(choices, list) else ():
            if not isinstance(choice, dict) or choice.pop("index", 0) != 0:
                self._is_plain = False
                return
            delta = choice.pop("delta", None)
            self._choice |= {name: value for name, value in choice.items() if value is not None}
            if choice.get("logprobs") is not None:
                self._is_plain = False
            for name, value in delta.items() if isinstance(delta, dict) else ():
                self._add_part(name, value)

    def _add_part(self, name: str, value: Any) -> None:
        if name == "role":
            self._message["role"] = value
        elif isinstance(value, str):
            self._texts.setdefault(name, []).append(value)
        elif value is not None:
            self._is_plain = False  # how parts of it are put together is not known here
