"""Server-sent events: bytes cut into whole events, an event's data, and events made of JSON.

Only whole events are passed on, so that an upstream that breaks off leaves no half of one behind.
An upstream that writes one event at a time, as they do, is not delayed by that.
"""

import re
from typing import Any

import msgspec

from cacheproxy.routes.dialects.completion import malformed

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


def data_of(event: bytes) -> bytes:
    """Return the data of an event; empty for a comment, or an event without data."""
    lines = (line for line in _LINE.split(event) if line.startswith(b"data:"))
    return b"\n".join(line[5:].removeprefix(b" ") for line in lines)


def object_of(data: bytes) -> dict[str, Any] | None:
    """Return the JSON object in an event's data; None if it is none."""
    try:
        return _DECODER.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def data_event(value: Any) -> bytes:
    """Return an event whose data is a JSON value."""
    return b"data: %b\n\n" % msgspec.json.encode(value)


def named_event(value: dict[str, Any]) -> bytes:
    """Return an event with the name that the JSON object's `type` says."""
    return b"event: %b\ndata: %b\n\n" % (value["type"].encode(), msgspec.json.encode(value))
