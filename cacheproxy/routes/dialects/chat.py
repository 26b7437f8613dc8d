"""OpenAI's chat completions: `POST /v1/chat/completions`."""

from typing import Any

from cacheproxy.routes.dialects.chat_stream import ChatAssembler, as_events, keepable
from cacheproxy.routes.dialects.completion import Completion, malformed, read_object
from cacheproxy.routes.dialects.request import (
    Bypass,
    CompletionRequest,
    divide_messages,
    parse_request,
    temperature_bypass,
    text_of_parts,
)
from cacheproxy.routes.dialects.sse import data_event


class ChatDialect:
    """A `Dialect` (see there for the methods)."""

    name = "chat"
    path = "chat/completions"

    def parse(self, body: bytes, *, max_temperature: float) -> CompletionRequest:
        """Return a request."""
        return parse_request(
            self.name,
            body,
            reason_to_bypass=lambda fields: _reason_to_bypass(fields, max_temperature),
            divide=divide_messages,
        )

    def read(self, body: bytes) -> Completion | None:
        """Return what may be kept of a whole answer."""
        return keepable(read_answer(body), body)

    def assembler(self) -> ChatAssembler:
        """Return an assembler of chunks."""
        return ChatAssembler()

    def replay(self, body: bytes, *, with_usage: bool) -> bytes:
        """Return chunks, and `[DONE]`."""
        return as_events(body, with_usage=with_usage)

    def error_event(self, error: dict[str, Any]) -> bytes:
        """Return an event with an `error` member, as OpenAI's clients expect it."""
        return data_event({"error": error})


def read_answer(body: bytes) -> dict[str, Any]:
    """Return the object of a whole answer with status 200.

    Raises:
        UpstreamFailed: it is none, whatever its status says.
    """
    answer = read_object(body)
    choices = answer.get("choices")
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        raise malformed("its answer has no choices")
    return answer


def _reason_to_bypass(fields: dict[str, Any], max_temperature: float) -> Bypass | None:
    messages = fields.get("messages")
    if not isinstance(messages, list) or not messages:
        return "shape"
    if not all(isinstance(message, dict) for message in messages):
        return "shape"
    has_tools = bool(fields.get("tools") or fields.get("functions"))
    for message in messages:
        has_tools |= message.get("role") in ("tool", "function") or bool(message.get("tool_calls"))
        content = message.get("content")
        if content is not None and text_of_parts(content) is None:
            return "media"
    if fields.get("audio") or fields.get("modalities") not in (None, ["text"]):
        return "media"
    if reason := temperature_bypass(fields, max_temperature):
        return reason
    if fields.get("n") not in (None, 1):
        return "n"
    if fields.get("store") is False:
        return "store"
    if fields.get("web_search_options") is not None:
        return "search"
    return "tools" if has_tools else None  # last: it is no reason where tool calls are cached
