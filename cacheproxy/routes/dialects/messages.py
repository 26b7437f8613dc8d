"""Anthropic's Messages API: `POST /v1/messages`."""

from collections.abc import Sequence
from typing import Any

import msgspec

from cacheproxy.routes.dialects.completion import (
    Completion,
    completion_of,
    malformed,
    read_object,
)
from cacheproxy.routes.dialects.request import (
    Bypass,
    CompletionRequest,
    divide_messages,
    parse_request,
    temperature_bypass,
    text_of_parts,
)
from cacheproxy.routes.dialects.sse import data_of, named_event, object_of
from cacheproxy.routes.dialects.text import text_in

_DECODER = msgspec.json.Decoder(dict[str, Any])

_STATE = ("container", "context_management")
_TOOLS = ("tools", "mcp_servers")


class MessagesDialect:
    """A `Dialect` (see there for the methods)."""

    name = "messages"
    path = "messages"

    def parse(self, body: bytes, *, max_temperature: float) -> CompletionRequest:
        """Return a request; every stream of this API tells the usage."""
        return parse_request(
            self.name,
            body,
            reason_to_bypass=lambda fields: _reason_to_bypass(fields, max_temperature),
            divide=divide_messages,
            always_tells_usage=True,
        )

    def read(self, body: bytes) -> Completion | None:
        """Return what may be kept of a whole answer."""
        answer = read_object(body)
        if answer.get("type") != "message":
            raise malformed("its answer is no message")
        return _keepable(answer, body)

    def assembler(self) -> "MessagesAssembler":
        """Return an assembler of events."""
        return MessagesAssembler()

    def replay(self, body: bytes, *, with_usage: bool) -> bytes:
        """Return the events that tell a message."""
        message = _DECODER.decode(body)
        usage = message.get("usage") or {}
        begun = {
            **message,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {**usage, "output_tokens": 0},
        }
        events: list[dict[str, Any]] = [{"type": "message_start", "message": begun}]
        for index, part in enumerate(message["content"]):
            delta = {"type": "text_delta", "text": part["text"]}
            events += [
                {
                    "type": "content_block_start",
                    "index": index,
                    "content_block": {**part, "text": ""},
                },
                {"type": "content_block_delta", "index": index, "delta": delta},
                {"type": "content_block_stop", "index": index},
            ]
        ended = {name: message.get(name) for name in ("stop_reason", "stop_sequence")}
        events += [
            {"type": "message_delta", "delta": ended, "usage": usage},
            {"type": "message_stop"},
        ]
        return b"".join(map(named_event, events))

    def error_event(self, error: dict[str, Any]) -> bytes:
        """Return the API's `error` event."""
        told = {"type": "api_error", "message": error.get("message")}
        return named_event({"type": "error", "error": told})


class MessagesAssembler:
    """Puts the events of one streamed message together.

    Attributes:
        is_done: whether the last event, `message_stop` or `error`, has come.
    """

    def __init__(self) -> None:
        self.is_done = False
        self._is_plain = True
        self._message: dict[str, Any] = {}
        self._blocks: list[dict[str, Any]] = []
        self._texts: list[list[str]] = []

    def take_all(self, events: Sequence[bytes]) -> int:
        """Take the next events, up to one that is malformed; return how many were taken."""
        for taken, event in enumerate(events):
            data = data_of(event)
            if not data:
                continue
            told = object_of(data)
            if told is None:
                self._is_plain = False
                return taken
            try:
                self._take(told)
            except (KeyError, TypeError, AttributeError, IndexError):
                self._is_plain = False  # an event of a shape that is not known here
        return len(events)

    def completion(self) -> Completion | None:
        """Return the answer as one completion; None unless it is complete and may be kept."""
        if not (self.is_done and self._is_plain and self._message):
            return None
        blocks = [
            {**block, "text": "".join(texts)}
            for block, texts in zip(self._blocks, self._texts, strict=True)
        ]
        answer = {**self._message, "content": blocks}
        return _keepable(answer, msgspec.json.encode(answer))

    def _take(self, told: dict[str, Any]) -> None:
        kind = told.get("type")
        if self.is_done or kind == "error":
            self._is_plain, self.is_done = False, True
        elif kind == "message_start":
            self._message = dict(told["message"])
        elif kind == "content_block_start":
            block = told["content_block"]
            self._is_plain &= block["type"] == "text" and told["index"] == len(self._blocks)
            self._blocks.append(block)
            self._texts.append([block.get("text") or ""])
        elif kind == "content_block_delta":
            self._is_plain &= told["delta"]["type"] == "text_delta"
            self._texts[told["index"]].append(told["delta"].get("text", ""))
        elif kind == "message_delta":
            self._message |= told["delta"]
            self._message["usage"] = {
                **(self._message.get("usage") or {}),
                **(told.get("usage") or {}),
            }
        elif kind == "message_stop":
            self.is_done = True


def _keepable(answer: dict[str, Any], body: bytes) -> Completion | None:
    if answer.get("type") != "message" or answer.get("stop_reason") != "end_turn":
        return None
    return completion_of(body, text_in(answer), answer.get("usage"))


def _reason_to_bypass(fields: dict[str, Any], max_temperature: float) -> Bypass | None:
    messages = fields.get("messages")
    if not isinstance(messages, list) or not messages:
        return "shape"
    if not all(isinstance(message, dict) for message in messages):
        return "shape"
    if any(fields.get(name) for name in _TOOLS):
        return "tools"
    if any(fields.get(name) for name in _STATE):
        return "state"
    if any(text_of_parts(message.get("content")) is None for message in messages):
        return "media"  # images, documents, tool results, thinking
    return temperature_bypass(fields, max_temperature)
