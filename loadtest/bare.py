"""What a Python server cannot be faster than: uvicorn answering with bytes that it has already.

`python -m loadtest.bare PORT FILE [REDIS_URL]` reads each request's body and answers with FILE's
bytes; with a Redis, after one GET through redis-py for each request, as a hand-written cache would.
"""

import sys
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import Receive, Scope, Send

_KEY = b"loadtest:bare"


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
            await self._start(receive, send)
            return
        while (await receive()).get("more_body"):
            pass
        body = self._body if self._redis is None else await self._redis.get(_KEY)
        await send({"type": "http.response.start", "status": 200, "headers": self._headers})
        await send({"type": "http.response.body", "body": body})

    async def _start(self, receive: Receive, send: Send) -> None:
        await receive()
        if self._redis is not None:
            await self._redis.set(_KEY, self._body, ex=3_600)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})


def main() -> None:
    """Serve until a signal ends it."""
    port, file, *redis_url = sys.argv[1:]
    app = Bare(Path(file).read_bytes(), redis_url[0] if redis_url else None)
    uvicorn.run(
        app, port=int(port), loop="uvloop", http="httptools", access_log=False, log_level="warning"
    )


if __name__ == "__main__":
    main()
