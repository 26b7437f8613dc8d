"""The fastest Python server: uvicorn, answering with bytes that it already has.

`python -m loadtest.servers.bare PORT FILE [REDIS_URL]` reads the body of each request and answers
with the bytes of FILE. With a Redis it makes one GET through redis-py for each request, as a
hand-written cache would.
"""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import Receive, Scope, Send

from .processes import free_port, running

_KEY = b"loadtest:bare"


@contextmanager
def running_bare(answer: bytes, *redis_url: str) -> Iterator[str]:
    """Yield the URL of a bare server that answers with these bytes, from a Redis if one is given.

    Raises:
        LoadTestError: the server does not become ready.
    """
    with tempfile.TemporaryDirectory() as folder:
        file, port = Path(folder) / "answer", free_port()
        file.write_bytes(answer)
        command = [sys.executable, "-m", __name__, str(port), str(file), *redis_url]
        with running(command, f"http://127.0.0.1:{port}", "/") as url:
            yield url


class Bare:
    """The smallest ASGI application that reads a body and answers."""

    def __init__(self, body: bytes, redis_url: str | None) -> None:
        self._body = body
        self._headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
        ]
        self._redis: Any = None
        if redis_url is not None:
            from redis.asyncio import Redis

            self._redis = Redis.from_url(redis_url)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        while (await receive()).get("more_body"):
            pass
        body = self._body if self._redis is None else await self._redis.get(_KEY)
        await send({"type": "http.response.start", "status": 200, "headers": self._headers})
        await send({"type": "http.response.body", "body": body})

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        if self._redis is not None:
            await self._redis.set(_KEY, self._body, ex=3_600)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})


def main() -> None:
    """Serve until a signal ends the process."""
    port, file, *redis_url = sys.argv[1:]
    app = Bare(Path(file).read_bytes(), redis_url[0] if redis_url else None)
    uvicorn.run(
        app, port=int(port), loop="uvloop", http="httptools", access_log=False, log_level="warning"
    )


if __name__ == "__main__":
    main()
