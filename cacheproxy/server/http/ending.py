"""How a connection ends: in a way that lets its client read the last answer.

uvicorn closes transports in many places. A connection that is closed with unread bytes is reset,
and the client loses its answer; so each of these places has to go through the connection. An answer
that does not wait for the whole body is followed by a short time in which the rest is read and
discarded.
"""

import asyncio
from typing import Any, Protocol, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

DISCARD_S = 5.0
"""Time in which the rest of a body is discarded after its answer."""

_STALLED_S = 60.0
"""A client that reads nothing of its last answer for so long is cut off."""


class EndingConnection(Protocol):
    """A connection that knows how to end."""

    is_ending: bool

    def end(self, transport: asyncio.Transport) -> None:
        """Close the transport, at once or when it is time."""


class _Lost:
    """Stands for a connection that is lost."""

    is_ending = True

    def end(self, transport: asyncio.Transport) -> None:
        """Do nothing."""


_LOST = _Lost()


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

    def forget(self) -> None:
        """Let go of the connection, which is lost: nothing is left to end."""
        self._connection = _LOST

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


class EndingProtocol(HttpToolsProtocol):
    """uvicorn's protocol with an end of its own, and one timer."""

    def __init__(self, *args: Any, **of_uvicorn: Any) -> None:
        super().__init__(*args, **of_uvicorn)
        self._in_head = True  # between requests, too
        self._has_begun = False
        self._is_deaf = False
        self.is_ending = False
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Have all who close the connection ask it how to end."""
        super().connection_made(EndingTransport(transport, self))

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget everything, and leave no circle for the garbage collector.

        Where each request has a connection of its own, circles cost it a pass, some 60 ms on the
        event loop, every thousand connections.
        """
        self.is_ending = self._is_deaf = True
        self._cancel_timer()
        self._unset_keepalive_if_required()
        self.pipeline.clear()
        super().connection_lost(exc)
        cast(EndingTransport, self.transport).forget()

    def shutdown(self) -> None:
        """Close the connection after the request in flight, at once if there is none."""
        if self.is_ending:
            self.transport.abort()
        else:
            super().shutdown()

    def end(self, transport: asyncio.Transport) -> None:
        """Close the connection: at once if all that the client sent is read, else as it can."""
        if self.is_ending or transport.is_closing():
            return
        has_read_all = self._in_head and not self._has_begun and not self._is_deaf
        self.is_ending = self._is_deaf = True
        self._unset_keepalive_if_required()
        if has_read_all:
            transport.close()
            self._set_timer(_STALLED_S, self._abort, transport.get_write_buffer_size())
        else:
            if transport.can_write_eof():  # not over TLS
                transport.write_eof()
            self.flow.resume_reading()
            self._set_timer(DISCARD_S, self._abort, transport.get_write_buffer_size())

    def _abort(self, unsent_bytes: int) -> None:
        """Cut the connection off unless its client is still reading."""
        still_unsent = self.transport.get_write_buffer_size()
        if 0 < still_unsent < unsent_bytes:
            self._set_timer(_STALLED_S, self._abort, still_unsent)
        else:
            self.transport.abort()

    def _set_timer(self, delay_s: float, call: Any, *args: Any) -> None:
        self._cancel_timer()
        self._timer = self.loop.call_later(delay_s, call, *args)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
