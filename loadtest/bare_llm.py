"""The fastest upstream that a Python server can be: `python -m loadtest.bare_llm PORT BYTES`.

Chat requests are answered at once with one fixed completion whose text has so many bytes, whole or
as three chunks.
"""

import json
import sys

import uvicorn
from starlette.types import Receive, Scope, Send

_BASE = {"id": "chatcmpl-1", "created": 1_700_000_000, "model": "bench"}
_USAGE = {"prompt_tokens": 10, "completion_tokens": 10, "total_tokens": 20}


def completion(size: int) -> bytes:
    """Return a completion's JSON with a text of so many bytes."""
    message = {"role": "assistant", "content": "x" * size}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    answer = {**_BASE, "object": "chat.completion", "choices": [choice], "usage": _USAGE}
    return json.dumps(answer).encode()


def _chunks(size: int) -> list[bytes]:
    deltas = [{"role": "assistant", "content": ""}, {"content": "x" * size}, {}]
    events = []
    for delta in deltas:
        reason = None if delta else "stop"
        choices = [{"index": 0, "delta": delta, "finish_reason": reason}]
        chunk = {**_BASE, "object": "chat.completion.chunk", "choices": choices}
        events.append(b"data: " + json.dumps(chunk).encode() + b"\n\n")
    return [*events, b"data: [DONE]\n\n"]


class BareLlm:
    """The smallest ASGI application that answers chat requests."""

    def __init__(self, size: int) -> None:
        self._body = completion(size)
        self._chunks = _chunks(size)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        is_stream = b'"stream": true' in body
        kind = b"text/event-stream" if is_stream else b"application/json"
        headers = [(b"content-type", kind)]
        if not is_stream:
            headers.append((b"content-length", b"%d" % len(self._body)))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if not is_stream:
            await send({"type": "http.response.body", "body": self._body})
            return
        for chunk in self._chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def main() -> None:
    """Serve until a signal ends it."""
    port, size = map(int, sys.argv[1:])
    uvicorn.run(
        BareLlm(size),
        port=port,
        loop="uvloop",
        http="httptools",
        lifespan="off",
        access_log=False,
        log_level="warning",
    )


if __name__ == "__main__":
    main()
