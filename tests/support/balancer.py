"""A small balancer before several servers: connections go to those that say they are ready.

It passes bytes, as a Kubernetes Service does, and so cannot take a kept connection away from a
server that drains: that is the server's to end, with `Connection: close`.
"""

import asyncio
import itertools
from contextlib import suppress

import httpx

_LOOK_EVERY_S = 0.05


class Balancer:
    """Used as an async context manager; servers are added and removed while it runs."""

    def __init__(self) -> None:
        self._ready: dict[str, bool] = {}
        self._turns = itertools.count()
        self._tasks: set[asyncio.Task] = set()

    async def __aenter__(self) -> "Balancer":
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        self._http = httpx.AsyncClient(timeout=5)
        self._looking = asyncio.create_task(self._look())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._looking.cancel()
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await self._http.aclose()

    def add(self, url: str) -> None:
        """Know a server; it gets connections once it is ready."""
        self._ready[url] = False

    def remove(self, url: str) -> None:
        """Forget a server."""
        del self._ready[url]

    async def until(self, url: str, is_ready: bool) -> None:
        """Wait until the balancer sees a server as ready, or as not ready."""
        async with asyncio.timeout(30):
            while self._ready[url] is not is_ready:
                await asyncio.sleep(0.01)

    async def _look(self) -> None:
        while True:
            for url in list(self._ready):
                try:
                    answer = await self._http.get(f"{url}/readyz")
                    is_ready = answer.status_code == 200
                except httpx.TransportError:
                    is_ready = False
                if url in self._ready:
                    self._ready[url] = is_ready
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ready = [url for url, is_ready in self._ready.items() if is_ready]
        url = ready[next(self._turns) % len(ready)]
        host, port = url.removeprefix("http://").split(":")
        to_reader, to_writer = await asyncio.open_connection(host, int(port))
        for task in (self._pass(reader, to_writer), self._pass(to_reader, writer)):
            passing = asyncio.create_task(task)
            self._tasks.add(passing)
            passing.add_done_callback(self._tasks.discard)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()
