"""A TCP relay that does to a connection what a test tells it to."""

import asyncio
from contextlib import suppress


class Relay:
    """Stands between clients and a server; used as an async context manager.

    Attributes:
        port: where it listens, on 127.0.0.1.
        accepted: connections so far.
        greeting_s: waited before a new connection is served.
        delay_s: waited before each piece of a reply is handed on.
        piece_bytes: size of those pieces.
        garbage: handed on in place of what the server says, if any.
        cut_at: bytes after which replies that are longer are cut, with their connection, if any.
        requests_left: bytes of requests after which connections are cut, if any.
        lose_reply_to: the next request that contains these bytes reaches the server; its reply is
            lost, as the connection is cut in its place.
    """

    def __init__(self, server_port: int):
        self._server_port = server_port
        self._open = asyncio.Event()
        self._open.set()
        self._tasks: set[asyncio.Task] = set()
        self._writers: list[asyncio.StreamWriter] = []
        self.port = 0
        self.accepted = 0
        self.greeting_s = 0.0
        self.delay_s = 0.0
        self.piece_bytes = 65536
        self.garbage: bytes | None = None
        self.cut_at: int | None = None
        self.requests_left: int | None = None
        self.lose_reply_to: bytes | None = None

    async def __aenter__(self):
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._listener.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self._listener.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def hold(self):
        """Hand on no replies until `release`."""
        self._open.clear()

    def release(self):
        self._open.set()

    def cut(self):
        """Reset every connection."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _accept(self, reader, writer):
        self.accepted += 1
        await asyncio.sleep(self.greeting_s)
        try:
            to_server = await asyncio.open_connection("127.0.0.1", self._server_port)
        except OSError:
            # Newer versions of Python close a connection whose callback fails, and older do not.
            writer.transport.abort()
            return
        self._writers += [writer, to_server[1]]
        is_lost = asyncio.Event()
        requests = self._requests(reader, to_server[1], is_lost)
        replies = self._replies(to_server[0], writer, is_lost)
        for pump in (requests, replies):
            task = asyncio.create_task(pump)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _requests(self, reader, writer, is_lost):
        with suppress(OSError):
            while data := await reader.read(65536):
                if self.lose_reply_to is not None and self.lose_reply_to in data:
                    self.lose_reply_to = None
                    is_lost.set()
                if self.requests_left is not None:
                    data = data[: self.requests_left]
                    self.requests_left -= len(data)
                writer.write(data)
                await writer.drain()
                if self.requests_left == 0:
                    self.requests_left = None
                    self.cut()
                    return
            writer.close()

    async def _replies(self, reader, writer, is_lost):
        with suppress(OSError):
            while data := await reader.read(65536):
                if is_lost.is_set():
                    writer.transport.abort()
                    return
                for start in range(0, len(data), self.piece_bytes):
                    await self._open.wait()
                    if self.delay_s:
                        await asyncio.sleep(self.delay_s)
                    piece = data[start : start + self.piece_bytes]
                    if self.cut_at is not None and len(data) > self.cut_at:
                        writer.write(data[: self.cut_at])
                        await writer.drain()
                        writer.transport.abort()
                        return
                    writer.write(piece if self.garbage is None else self.garbage)
                    await writer.drain()
            writer.close()
