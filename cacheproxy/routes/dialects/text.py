"""The text of a kept answer, whichever API its body is of."""

from typing import Any

import msgspec

_DECODER = msgspec.json.Decoder(dict[str, Any])


def text_of(body: bytes) -> str:
    """Return the text of a kept answer."""
    answer = _DECODER.decode(body)
    if answer.get("object") == "response":
        return response_text(answer) or ""
    if answer.get("type") == "message":
        return message_text(answer) or ""
    (choice,) = answer["choices"]
    text: str = choice["message"]["content"] if "message" in choice else choice["text"]
    return text


def response_text(answer: dict[str, Any]) -> str | None:
    """Return the text of a response; None if it holds anything but reasoning and text."""
    parts: list[str] = []
    for item in answer.get("output") or ():
        if item.get("type") == "reasoning":
            continue
        if item.get("type") != "message":
            return None
        for part in item.get("content") or ():
            if part.get("type") != "output_text" or not isinstance(part.get("text"), str):
                return None
            parts.append(part["text"])
    return "".join(parts) if parts else None


def message_text(answer: dict[str, Any]) -> str | None:
    """Return the text of a message; None if it holds anything but text."""
    parts = answer.get("content")
    if not isinstance(parts, list) or not parts:
        return None
    if not all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in parts):
        return None
    return "".join(part["text"] for part in parts) if parts else None
