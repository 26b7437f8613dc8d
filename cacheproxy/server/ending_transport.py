"""A transport that its connection closes in a way of its own.

uvicorn closes transports in many places. A connection that is closed with unread bytes is reset,
and the client loses its answer; so each of these places has to go through the connection.
"""

import asyncio
from typing import Any, Protocol


class EndingConnection(Protocol):
    """A connection that knows how to end."""

    is_ending: bool

    def end(self, transport: asyncio.Transport) -> None:
        """Close the transport, at once or when it is time."""


class EndingTransport(asyncio.Transport):
    """A transport whose `close` asks the connection how to end."""

    __slots__ = ("_connection", "_transport", "write")

    def __init__(self, transport: asyncio.Transport, connection: EndingConnection) -> None:
        self._transport = transport
        self._connection = connection
        self.write = transport.write  # type: ignore[method-assign]  # two calls an answer

    def close(self) -> None:
        """Have the connection end."""
        self._connection.end(self._transport)

    def is_closing(self) -> bool:
        """Whether the connection is about to close, or does so."""
        return self._connection.is_ending or self._transport.is_closing()

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    def get_write_buffer_size(self) -> int:
        """Return the number of bytes that are not sent yet."""
        return self._transport.get_write_buffer_size()

    def pause_reading(self) -> None:
        """Read nothing until told otherwise."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read again."""
        self._transport.resume_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what the transport knows of itself."""
        return self._transport.get_extra_info(name, default)
