"""The text of an answer, whichever API it is of.

An upstream may answer with anything, so nothing is taken for granted here: what is kept is what
this module finds a text in, and finds the same text in later.
"""

from typing import Any

import msgspec

_DECODER = msgspec.json.Decoder(dict[str, Any])


def text_of(body: bytes) -> str:
    """Return the text of a kept answer."""
    return text_in(_DECODER.decode(body)) or ""


def text_in(answer: dict[str, Any]) -> str | None:
    """Return the text of an answer; None if it has none, or anything else that would be lost."""
    if answer.get("object") == "response":
        return _response_text(answer)
    if answer.get("type") == "message":
        return _message_text(answer)
    choices = answer.get("choices")
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
        return None
    message = choices[0].get("message")
    text = message.get("content") if isinstance(message, dict) else choices[0].get("text")
    return text if isinstance(text, str) else None


def _response_text(answer: dict[str, Any]) -> str | None:
    """Return the text of a response; None if it holds anything but reasoning and text."""
    parts: list[str] = []
    for item in _objects(answer.get("output")) or ():
        if item.get("type") == "reasoning":
            continue
        content = _objects(item.get("content"))
        if item.get("type") != "message" or content is None:
            return None
        for part in content:
            if part.get("type") != "output_text" or not isinstance(part.get("text"), str):
                return None
            parts.append(part["text"])
    return "".join(parts) if parts else None


def _message_text(answer: dict[str, Any]) -> str | None:
    """Return the text of a message; None if it holds anything but text."""
    parts = _objects(answer.get("content"))
    if not parts or not all(isinstance(part.get("text"), str) for part in parts):
        return None
    return "".join(part["text"] for part in parts)


def _objects(value: Any) -> list[dict[str, Any]] | None:
    """Return a list of JSON objects; None if the value is anything else."""
    if isinstance(value, list) and all(isinstance(one, dict) for one in value):
        return value
    return None
