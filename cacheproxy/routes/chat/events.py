"""A streamed answer: its bytes cut into whole events, and the completion that they tell, put
together again.

Only whole events are passed on, so that an upstream that breaks off leaves no half of one behind.
An upstream that writes an event at a time, as they do, is not held up by that. A pure core.
"""

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from cacheproxy.routes.chat.completion import Completion, keepable, malformed

_BOUNDARY = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_LINE = re.compile(rb"\r\n|\n|\r")
_DECODER = msgspec.json.Decoder(dict[str, Any])

_MOST_EVENT_BYTES = 2**20
"""Of one event: an answer comes in many."""


class EventCutter:
    """Cuts a stream of bytes into events."""

    def __init__(self) -> None:
        self._rest = b""

    def cut(self, chunk: bytes) -> list[bytes]:
        """Return the events that are whole now, the empty line at the end of each included.

        Raises:
            UpstreamFailed: an event has no end.
        """
        data = self._rest + chunk
        events, start = [], 0
        for found in _BOUNDARY.finditer(data, max(0, len(self._rest) - 3)):
            events.append(data[start : found.end()])
            start = found.end()
        self._rest = data[start:]
        if len(self._rest) > _MOST_EVENT_BYTES:
            raise malformed("an event of its stream has no end")
        return events


class Assembler:
    """Puts the chunks of one streamed completion together.

    Attributes:
        is_done: whether the last event, `[DONE]`, has come.
    """

    def __init__(self) -> None:
        self.is_done = False
        self._is_plain = True
        self._answer: dict[str, Any] = {}
        self._choice: dict[str, Any] = {"index": 0}
        self._message: dict[str, Any] = {}
        self._texts: dict[str, list[str]] = {}

    def take_all(self, events: Sequence[bytes]) -> int:
        """Take the next events, up to one that holds no chunk; return how many were taken."""
        for taken, event in enumerate(events):
            if not self._take(event):
                return taken
        return len(events)

    def _take(self, event: bytes) -> bool:
        lines = (line for line in _LINE.split(event) if line.startswith(b"data:"))
        data = b"\n".join(line[5:].removeprefix(b" ") for line in lines)
        if not data:
            return True  # a comment, or a field that says nothing of the answer
        if data.strip() == b"[DONE]":
            self.is_done = True
            return True
        try:
            chunk = _DECODER.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self._is_plain = False
            return False
        if self.is_done or "error" in chunk:
            self._is_plain = False
        self._add(chunk)
        return True

    def completion(self) -> Completion | None:
        """Return what was told as one completion; None unless it is whole and may be kept."""
        if not (self.is_done and self._is_plain):
            return None
        message = self._message | {name: "".join(parts) for name, parts in self._texts.items()}
        answer = {
            **self._answer,
            "object": "chat.completion",
            "choices": [{**self._choice, "message": {"role": "assistant", **message}}],
        }
        return keepable(answer, msgspec.json.encode(answer))

    def _add(self, chunk: dict[str, Any]) -> None:
        choices = chunk.pop("choices", None)
        self._answer |= {name: value for name, value in chunk.items() if value is not None}
        for choice in choices if isinstance(choices, list) else ():
            if not isinstance(choice, dict) or choice.pop("index", 0) != 0:
                self._is_plain = False
                return
            delta = choice.pop("delta", None)
            self._choice |= {name: value for name, value in choice.items() if value is not None}
            if choice.get("logprobs") is not None:
                self._is_plain = False
            for name, value in delta.items() if isinstance(delta, dict) else ():
                self._add_part(name, value)

    def _add_part(self, name: str, value: Any) -> None:
        if name == "role":
            self._message["role"] = value
        elif isinstance(value, str):
            self._texts.setdefault(name, []).append(value)
        elif value is not None:
            self._is_plain = False  # how parts of it are put together is not known here
