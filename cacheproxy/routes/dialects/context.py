"""A question as a judge reads it: with the conversation before it, if there is one."""

from collections.abc import Iterator
from typing import Any

from cacheproxy.routes.dialects.request import CompletionRequest, text_of_parts

_TEXT_PARTS = ("text", "input_text", "output_text")
_INSTRUCTIONS = ("system", "instructions")
_MESSAGES = ("messages", "input")

_MOST_CHARACTERS = 12_000
"""Of the conversation; what comes first is left out."""


def in_context(request: CompletionRequest) -> str:
    """Return the last user turn of a request, behind the turns before it; alone if it is alone."""
    if request.divided is None:
        return ""
    question, rest = request.divided
    lines = list(_lines(rest))
    if not lines:
        return question
    return "\n".join(["\n".join(lines)[-_MOST_CHARACTERS:], f"user: {question}"])


def _lines(rest: dict[str, Any]) -> Iterator[str]:
    for name in _INSTRUCTIONS:
        text = text_of_parts(rest.get(name))
        if text:
            yield f"system: {text}"
    for name in _MESSAGES:
        messages = rest.get(name)
        for message in messages if isinstance(messages, list) else ():
            text = text_of_parts(message.get("content"), _TEXT_PARTS)
            if text:
                yield f"{message.get('role', 'user')}: {text}"
