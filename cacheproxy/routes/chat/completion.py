"""What an upstream answered: whether it is an answer at all, and whether it may be kept.

Kept is only what is whole and would serve anybody who asks the same: one choice that came to its
end by itself (`finish_reason` "stop"), with a text and nothing else that calls for action. A pure
core.
"""

from dataclasses import dataclass
from typing import Any

import msgspec

from cacheproxy.errors import UpstreamFailed

_DECODER = msgspec.json.Decoder(dict[str, Any])

_ACTS = ("tool_calls", "function_call", "refusal", "audio")
"""Of a message: it is more, or less, than an answer in words."""


@dataclass(frozen=True, slots=True)
class Completion:
    """An answer that may be kept.

    Attributes:
        body: a `chat.completion` object, as JSON.
        text: the message's content.
        prompt_tokens, completion_tokens: as the upstream counted them; 0 where it did not say.
        has_usage: whether it said.
    """

    body: bytes
    text: str
    prompt_tokens: int
    completion_tokens: int
    has_usage: bool


def read_answer(body: bytes) -> dict[str, Any]:
    """Return the object of a plain answer with status 200.

    Raises:
        UpstreamFailed: it is none, whatever its status says.
    """
    try:
        answer = _DECODER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise malformed("its answer is not a JSON object") from None
    if answer.get("error"):
        raise malformed("its answer is an error under the status 200")
    choices = answer.get("choices")
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        raise malformed("its answer has no choices")
    return answer


def malformed(reason: str) -> UpstreamFailed:
    """Return the error that tells of an answer that is none."""
    return UpstreamFailed(f"the upstream failed: {reason}", code="upstream_malformed")


def keepable(answer: dict[str, Any], body: bytes) -> Completion | None:
    """Return an answer and its JSON as what may be kept, or None."""
    if len(answer["choices"]) != 1:
        return None
    (choice,) = answer["choices"]
    message = choice.get("message")
    if choice.get("finish_reason") != "stop" or not isinstance(message, dict):
        return None
    text = message.get("content")
    if not isinstance(text, str) or not text or any(message.get(act) for act in _ACTS):
        return None
    usage = answer.get("usage")
    prompt_tokens, completion_tokens = (
        _count(usage, name) for name in ("prompt_tokens", "completion_tokens")
    )
    has_usage = prompt_tokens is not None and completion_tokens is not None
    return Completion(body, text, prompt_tokens or 0, completion_tokens or 0, has_usage)


def text_of(body: bytes) -> str:
    """Return the content of a kept completion."""
    content: str = _DECODER.decode(body)["choices"][0]["message"]["content"]
    return content


def _count(usage: Any, name: str) -> int | None:
    count = usage.get(name) if isinstance(usage, dict) else None
    is_count = isinstance(count, int) and not isinstance(count, bool) and 0 <= count < 2**32
    return count if is_count else None
