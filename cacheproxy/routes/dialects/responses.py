"""OpenAI's Responses API: `POST /v1/responses`.

Stateless requests are cached. Those that refer to state kept by the upstream (`store: true`,
`previous_response_id`, `conversation`, `prompt`, `background`), and those with tools, bypass the
tiers.
"""

from collections.abc import Iterator, Sequence
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
    Divided,
    parse_request,
    temperature_bypass,
    text_of_parts,
)
from cacheproxy.routes.dialects.sse import data_of, named_event, object_of
from cacheproxy.routes.dialects.text import text_in

_DECODER = msgspec.json.Decoder(dict[str, Any])

_STATE = ("previous_response_id", "conversation", "prompt", "background", "store")
_TEXT_PARTS = ("input_text", "output_text", "text")
_LAST = ("response.completed", "response.incomplete", "response.failed", "error")


class ResponsesDialect:
    """A `Dialect` (see there for the methods)."""

    name = "responses"
    path = "responses"

    def parse(self, body: bytes, *, max_temperature: float) -> CompletionRequest:
        """Return a request; every stream of this API tells the usage."""
        return parse_request(
            self.name,
            body,
            reason_to_bypass=lambda fields: _reason_to_bypass(fields, max_temperature),
            divide=_divide,
            always_tells_usage=True,
        )

    def read(self, body: bytes) -> Completion | None:
        """Return what may be kept of a whole answer."""
        answer = read_object(body)
        if answer.get("object") != "response":
            raise malformed("its answer is no response object")
        return _keepable(answer, body)

    def assembler(self) -> "ResponsesAssembler":
        """Return an assembler of events."""
        return ResponsesAssembler()

    def replay(self, body: bytes, *, with_usage: bool) -> bytes:
        """Return the events that lead to a response, numbered as the API numbers them."""
        response = _DECODER.decode(body)
        events = []
        for number, event in enumerate(_events(response)):
            events.append(named_event({**event, "sequence_number": number}))
        return b"".join(events)

    def error_event(self, error: dict[str, Any]) -> bytes:
        """Return the API's `error` event."""
        told = {name: error.get(name) for name in ("code", "message", "param")}
        return named_event({"type": "error", **told, "sequence_number": 0})


class ResponsesAssembler:
    """Finds the whole response in its stream: the last event holds it.

    Attributes:
        is_done: whether the last event has come.
    """

    def __init__(self) -> None:
        self.is_done = False
        self._response: dict[str, Any] | None = None

    def take_all(self, events: Sequence[bytes]) -> int:
        """Take the next events, up to one that is malformed; return how many were taken."""
        for taken, event in enumerate(events):
            data = data_of(event)
            if not data or data.strip() == b"[DONE]":
                continue
            told = object_of(data)
            if told is None:
                return taken
            if told.get("type") in _LAST:
                self.is_done = True
            if told.get("type") == "response.completed":
                response = told.get("response")
                self._response = response if isinstance(response, dict) else None
        return len(events)

    def completion(self) -> Completion | None:
        """Return the answer as one completion; None unless it is complete and may be kept."""
        if self._response is None:
            return None
        return _keepable(self._response, msgspec.json.encode(self._response))


def _keepable(answer: dict[str, Any], body: bytes) -> Completion | None:
    if answer.get("status") != "completed" or answer.get("incomplete_details") is not None:
        return None
    if answer.get("object") != "response":
        return None
    return completion_of(body, text_in(answer), answer.get("usage"))


def _events(response: dict[str, Any]) -> Iterator[dict[str, Any]]:
    begun = {**response, "status": "in_progress", "output": [], "usage": None}
    yield {"type": "response.created", "response": begun}
    yield {"type": "response.in_progress", "response": begun}
    for index, item in enumerate(response["output"]):
        place = {"output_index": index}
        empty = {**item, "status": "in_progress"}
        if item.get("type") == "message":
            empty["content"] = []
        yield {"type": "response.output_item.added", **place, "item": empty}
        if item.get("type") == "message":
            yield from _parts(item, {"item_id": item.get("id"), **place})
        yield {"type": "response.output_item.done", **place, "item": item}
    yield {"type": "response.completed", "response": response}


def _parts(item: dict[str, Any], place: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for index, part in enumerate(item["content"]):
        here = {**place, "content_index": index}
        yield {"type": "response.content_part.added", **here, "part": {**part, "text": ""}}
        text = part["text"]
        yield {"type": "response.output_text.delta", **here, "delta": text, "logprobs": []}
        yield {"type": "response.output_text.done", **here, "text": text, "logprobs": []}
        yield {"type": "response.content_part.done", **here, "part": part}


def _divide(fields: dict[str, Any]) -> Divided | None:
    given = fields["input"]
    if isinstance(given, str):
        return Divided(given, {**fields, "input": None})
    *earlier, last = given
    text = text_of_parts(last.get("content"), _TEXT_PARTS)
    if last.get("role") != "user" or text is None:
        return None
    return Divided(text, {**fields, "input": [*earlier, {**last, "content": None}]})


def _reason_to_bypass(fields: dict[str, Any], max_temperature: float) -> Bypass | None:
    if any(fields.get(name) not in (None, False) for name in _STATE):
        return "state"
    if fields.get("tools"):
        return "tools"
    given = fields.get("input")
    if isinstance(given, list) and given:
        for item in given:
            if not isinstance(item, dict):
                return "shape"
            if item.get("type", "message") != "message":
                return "state" if item.get("type") == "item_reference" else "tools"
            if text_of_parts(item.get("content"), _TEXT_PARTS) is None:
                return "media"
    elif not isinstance(given, str) or not given:
        return "shape"
    return temperature_bypass(fields, max_temperature)
