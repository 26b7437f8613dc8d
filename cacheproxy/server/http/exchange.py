"""One request on an HTTP/1.1 connection and its answer: uvicorn's, with a cheaper head.

uvicorn looks at every name and every value of a head with a regular expression each, a twentieth
of what a hit in the hot tier costs. Here names that were found to be valid are remembered, and all
values are looked at together. A head whose body follows is sent with it: a write of its own would
be another system call, and often another packet. What is sent is the same.
"""

import asyncio
from collections.abc import Iterable
from typing import cast

from starlette.types import Message
from uvicorn._types import ASGI3Application, ASGISendEvent
from uvicorn.protocols.http.httptools_impl import (
    HEADER_RE,
    HEADER_VALUE_RE,
    STATUS_LINE,
    RequestResponseCycle,
)

_MOST_NAMES = 512
"""Names remembered as valid. Upstreams choose some of them, so that their number is bounded."""

_WITHOUT_BODY = frozenset((204, 304))

_valid_names: set[bytes] = set()


class HttpExchange(RequestResponseCycle):
    """uvicorn's request and answer, one of each."""

    tasks: set[asyncio.Task[None]]
    """The server's requests in flight, of which this is one while it runs."""

    _unsent_head = b""
    """Waits for its body, of which the length is known."""

    async def run_asgi(self, app: ASGI3Application) -> None:
        """Run the application."""
        try:
            await super().run_asgi(app)
        finally:
            # A done callback of the task would take another turn of the loop.
            self.tasks.discard(cast("asyncio.Task[None]", asyncio.current_task()))

    async def receive(self) -> Message:  # type: ignore[override]
        """Return the next part of the body, or wait for it or for the client to leave."""
        if (
            not self.message_event.is_set()
            or self.waiting_for_100_continue
            or self.disconnected
            or self.response_complete
        ):
            return cast(Message, await super().receive())
        self.message_event.clear()
        body, self.body = bytes(self.body), bytearray()
        self.flow.resume_reading()
        return {"type": "http.request", "body": body, "more_body": self.more_body}

    async def send(self, message: Message) -> None:  # type: ignore[override]
        """Send a part of the answer.

        Raises:
            RuntimeError: a message out of turn, an invalid header, or a body of another length.
        """
        if self.flow.write_paused or self.disconnected or self.response_complete:
            await self._send_otherwise(message)
        elif message["type"] == "http.response.start" and not self.response_started:
            self.response_started = True
            self.waiting_for_100_continue = False
            head = self._head(message["status"], message.get("headers", ()))
            if self.expected_content_length and self.scope["method"] != "HEAD":
                self._unsent_head = head
            else:
                self.transport.write(head)
        elif self._is_whole(message):
            self.transport.write(self._unsent_head + message["body"])
            self._unsent_head = b""
            self.expected_content_length = 0
            self.response_complete = True
            self.message_event.set()
            if not self.keep_alive:
                self.transport.close()
            self.on_response()
        else:
            await self._send_otherwise(message)

    async def _send_otherwise(self, message: Message) -> None:
        if self._unsent_head and not self.disconnected:
            self.transport.write(self._unsent_head)
            self._unsent_head = b""
        await super().send(cast(ASGISendEvent, message))

    def _is_whole(self, message: Message) -> bool:
        """Whether a message has the whole body of an answer of that length."""
        return (
            message["type"] == "http.response.body"
            and self.chunked_encoding is False
            and not message.get("more_body", False)
            and len(message.get("body", b"")) == self.expected_content_length > 0
            and self.scope["method"] != "HEAD"
        )

    def _head(self, status: int, given: Iterable[tuple[bytes, bytes]]) -> bytes:
        """Return the head of the answer, and decide how its body will be sent."""
        lines = [STATUS_LINE[status]]
        values = []
        says_close = False
        for name, value in (*self.default_headers, *given):
            if name not in _valid_names:
                name = _checked(name)
            if name == b"content-length" and self.chunked_encoding is None:
                self.expected_content_length = int(value)
                self.chunked_encoding = False
            elif name == b"transfer-encoding" and value.lower() == b"chunked":
                self.expected_content_length = 0
                self.chunked_encoding = True
            elif name == b"connection" and b"close" in _tokens(value):
                self.keep_alive = False
                says_close = True
            lines += (name, b": ", value, b"\r\n")
            values.append(value)
        if HEADER_VALUE_RE.search(b"".join(values)):
            raise RuntimeError("a header has an invalid value")
        if not self.keep_alive and not says_close:
            lines.append(b"connection: close\r\n")
        has_body = self.scope["method"] != "HEAD" and status not in _WITHOUT_BODY
        if self.chunked_encoding is None and has_body:
            self.chunked_encoding = True
            lines.append(b"transfer-encoding: chunked\r\n")
        lines.append(b"\r\n")
        return b"".join(lines)


def _tokens(value: bytes) -> list[bytes]:
    return [token.strip().lower() for token in value.split(b",")]


def _checked(name: bytes) -> bytes:
    """Return a header's name in lower case."""
    if not name or HEADER_RE.search(name):
        raise RuntimeError("a header has an invalid name")
    lower = name.lower()
    if len(_valid_names) < _MOST_NAMES:
        _valid_names.add(lower)
    return lower
