"""Streams of chat completions: chunks put together, and a kept completion sent as chunks.

A kept one is sent as a chunk for the role, one with the text or the tool calls, one that says that
it ended, one with the usage if that was asked for, and `[DONE]`.
"""

from typing import Any

import msgspec

from cacheproxy.routes.dialects.chunks import DONE, ChunkAssembler
from cacheproxy.routes.dialects.completion import Completion, completion_of, tool_calls_of
from cacheproxy.routes.dialects.sse import data_event
from cacheproxy.routes.dialects.text import text_in

_DECODER = msgspec.json.Decoder(dict[str, Any])

_USAGE = ("prompt_tokens", "completion_tokens")

_ACTS = ("function_call", "refusal", "audio")
"""Members of a message that make it more, or less, than an answer in words."""

_MOST_CALLS = 128
"""Tool calls in one answer: OpenAI takes no more tools than that."""


def as_events(body: bytes, *, with_usage: bool) -> bytes:
    """Return the events that tell a `chat.completion` in JSON, `[DONE]` included."""
    answer = _DECODER.decode(body)
    (choice,) = answer.pop("choices")
    usage = answer.pop("usage", None)
    message = choice.pop("message")
    role = message.pop("role", "assistant")
    finish_reason = choice.pop("finish_reason")
    told = {name: value for name, value in message.items() if value is not None}
    if calls := told.get("tool_calls"):
        told["tool_calls"] = [{"index": index, **call} for index, call in enumerate(calls)]
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
    if not isinstance(message, dict) or any(message.get(act) for act in _ACTS):
        return None
    usage = answer.get("usage")
    match choice.get("finish_reason"):
        case "stop" if not message.get("tool_calls"):
            return completion_of(body, text_in(answer), usage, _USAGE)
        case "tool_calls" | "stop":  # a call that was forced ends with "stop"
            return tool_calls_of(body, message.get("tool_calls"), usage, _USAGE)
    return None


class ChatAssembler(ChunkAssembler):
    """Puts the chunks of one chat completion together."""

    def __init__(self) -> None:
        super().__init__()
        self._message: dict[str, Any] = {}
        self._texts: dict[str, list[str]] = {}
        self._calls: dict[int, dict[str, Any]] = {}

    def _whole(self) -> dict[str, Any]:
        message = self._message | {name: "".join(parts) for name, parts in self._texts.items()}
        if self._calls:
            message.setdefault("content", None)
            message["tool_calls"] = [call for _, call in sorted(self._calls.items())]
        return {
            **self._answer,
            "object": "chat.completion",
            "choices": [{"index": 0, **self._choice, "message": {"role": "assistant", **message}}],
        }

    @staticmethod
    def _keepable(answer: dict[str, Any], body: bytes) -> Completion | None:
        return keepable(answer, body)

    def _add(self, choice: dict[str, Any]) -> None:
        delta = choice.pop("delta", None)
        for name, value in delta.items() if isinstance(delta, dict) else ():
            if name == "role":
                self._message["role"] = value
            elif isinstance(value, str):
                self._texts.setdefault(name, []).append(value)
            elif name == "tool_calls" and isinstance(value, list):
                for part in value:
                    self._add_call(part)
            elif value is not None:
                self._is_plain = False  # how parts of it are put together is not known here

    def _add_call(self, part: Any) -> None:
        """Add a part of a tool call; the parts of its arguments are put one behind another."""
        match part:
            case {"index": int(index)} if 0 <= index < _MOST_CALLS:
                call = self._calls.setdefault(index, {"type": "function"})
            case _:
                self._is_plain = False
                return
        function = part.get("function")
        call |= {
            name: value
            for name, value in part.items()
            if value is not None and name not in ("index", "function")
        }
        if not isinstance(function, dict):
            self._is_plain &= function is None
            return
        known = call.setdefault("function", {"arguments": ""})
        arguments = function.pop("arguments", None)
        known |= {name: value for name, value in function.items() if value is not None}
        if isinstance(arguments, str):
            known["arguments"] += arguments
        elif arguments is not None:
            self._is_plain = False
