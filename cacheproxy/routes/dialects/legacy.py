"""OpenAI's legacy completions: `POST /v1/completions`."""

from collections.abc import Sequence
from typing import Any

import msgspec

from cacheproxy.routes.dialects.chat_stream import DONE
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
)
from cacheproxy.routes.dialects.sse import data_event, data_of, object_of
from cacheproxy.routes.dialects.text import text_in

_DECODER = msgspec.json.Decoder(dict[str, Any])
_USAGE = ("prompt_tokens", "completion_tokens")


class LegacyDialect:
    """A `Dialect` (see there for the methods)."""

    name = "completions"
    path = "completions"

    def parse(self, body: bytes, *, max_temperature: float) -> CompletionRequest:
        """Return a request."""
        return parse_request(
            self.name,
            body,
            reason_to_bypass=lambda fields: _reason_to_bypass(fields, max_temperature),
            divide=_divide,
        )

    def read(self, body: bytes) -> Completion | None:
        """Return what may be kept of a whole answer."""
        answer = read_object(body)
        if not isinstance(answer.get("choices"), list):
            raise malformed("its answer has no choices")
        return _keepable(answer, body)

    def assembler(self) -> "LegacyAssembler":
        """Return an assembler of chunks."""
        return LegacyAssembler()

    def replay(self, body: bytes, *, with_usage: bool) -> bytes:
        """Return a chunk with the text, one that says that it ended, and `[DONE]`."""
        answer = _DECODER.decode(body)
        (choice,) = answer.pop("choices")
        usage = answer.pop("usage", None)
        told = {**choice, "finish_reason": None}
        ended = {**choice, "text": ""}
        chunks = [data_event({**answer, "choices": [one]}) for one in (told, ended)]
        if with_usage:
            chunks.append(data_event({**answer, "choices": [], "usage": usage}))
        return b"".join((*chunks, DONE))

    def error_event(self, error: dict[str, Any]) -> bytes:
        """Return an event with an `error` member, as OpenAI's clients expect it."""
        return data_event({"error": error})


class LegacyAssembler:
    """Puts the chunks of one streamed completion together.

    Attributes:
        is_done: whether the last event, `[DONE]`, has come.
    """

    def __init__(self) -> None:
        self.is_done = False
        self._is_plain = True
        self._answer: dict[str, Any] = {}
        self._choice: dict[str, Any] = {"index": 0}
        self._texts: list[str] = []

    def take_all(self, events: Sequence[bytes]) -> int:
        """Take the next events, up to one that is malformed; return how many were taken."""
        for taken, event in enumerate(events):
            if not self._take(data_of(event)):
                return taken
        return len(events)

    def completion(self) -> Completion | None:
        """Return the answer as one completion; None unless it is complete and may be kept."""
        if not (self.is_done and self._is_plain):
            return None
        choice = {**self._choice, "text": "".join(self._texts)}
        answer = {**self._answer, "choices": [choice]}
        return _keepable(answer, msgspec.json.encode(answer))

    def _take(self, data: bytes) -> bool:
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
        choices = chunk.pop("choices", None)
        self._answer |= {name: value for name, value in chunk.items() if value is not None}
        for choice in choices if isinstance(choices, list) else ():
            if not isinstance(choice, dict) or choice.get("index", 0) != 0:
                self._is_plain = False
                continue
            text = choice.pop("text", "")
            self._is_plain &= isinstance(text, str) and choice.get("logprobs") is None
            self._texts.append(text if isinstance(text, str) else "")
            self._choice |= {name: value for name, value in choice.items() if value is not None}
        return True


def _keepable(answer: dict[str, Any], body: bytes) -> Completion | None:
    if len(answer["choices"]) != 1 or not isinstance(answer["choices"][0], dict):
        return None
    (choice,) = answer["choices"]
    if choice.get("finish_reason") != "stop":
        return None
    return completion_of(body, text_in(answer), answer.get("usage"), _USAGE)


def _divide(fields: dict[str, Any]) -> Divided:
    return Divided(fields["prompt"], {**fields, "prompt": None})


def _reason_to_bypass(fields: dict[str, Any], max_temperature: float) -> Bypass | None:
    prompt = fields.get("prompt")
    if not isinstance(prompt, str) or not prompt:
        return "shape"  # several prompts, or token ids: several answers, or an unknown vocabulary
    if fields.get("n") not in (None, 1) or fields.get("best_of") not in (None, 1):
        return "n"
    return temperature_bypass(fields, max_temperature)
