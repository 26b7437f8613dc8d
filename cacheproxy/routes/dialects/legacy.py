"""OpenAI's legacy completions: `POST /v1/completions`."""

from typing import Any

import msgspec

from cacheproxy.routes.dialects.chunks import DONE, ChunkAssembler
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
from cacheproxy.routes.dialects.sse import data_event
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


class LegacyAssembler(ChunkAssembler):
    """Puts the chunks of one legacy completion together."""

    def __init__(self) -> None:
        super().__init__()
        self._texts: list[str] = []

    def _whole(self) -> dict[str, Any]:
        return {
            **self._answer,
            "choices": [{"index": 0, **self._choice, "text": "".join(self._texts)}],
        }

    @staticmethod
    def _keepable(answer: dict[str, Any], body: bytes) -> Completion | None:
        return _keepable(answer, body)

    def _add(self, choice: dict[str, Any]) -> None:
        text = choice.pop("text", "")
        self._is_plain &= isinstance(text, str)
        self._texts.append(text if isinstance(text, str) else "")


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
