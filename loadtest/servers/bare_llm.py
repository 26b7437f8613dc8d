"""The fastest chat upstream in Python: `python -m loadtest.servers.bare_llm PORT BYTES`.

It answers every chat request at once with the same completion, whose text has BYTES bytes: whole,
or as a stream of three chunks. `POST /fault/fails` has it answer 500 from now on,
`/fault/stalls` not at all, and `/fault/none` as before.
"""

import asyncio
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import orjson
import uvicorn
from starlette.types import Receive, Scope, Send

from .processes import free_port, running

_BASE = {"id": "chatcmpl-1", "created": 1_700_000_000, "model": "bench"}
_USAGE = {"prompt_tokens": 10, "completion_tokens": 10, "total_tokens": 20}


@contextmanager
def running_llm(size: int) -> Iterator[str]:
    """Yield the URL of an upstream whose answers have texts of `size` bytes.

    Raises:
        LoadTestError: the server does not become ready.
    """
    port = free_port()
    command = [sys.executable, "-m", __name__, str(port), str(size)]
    with running(command, f"http://127.0.0.1:{port}", "/") as url:
        yield url


def completion(size: int) -> bytes:
    """Return a completion as JSON, with a text of `size` bytes."""
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
        self._is_well = asyncio.Event()
        self._is_well.set()
        self._fails = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        _, is_fault, fault = scope["path"].partition("/fault/")
        if is_fault:
            self._fails = fault == "fails"
            (self._is_well.clear if fault == "stalls" else self._is_well.set)()
        else:
            await self._is_well.wait()
        if self._fails and not is_fault:
            failed = [(b"content-length", b"2"), (b"content-type", b"application/json")]
            await send({"type": "http.response.start", "status": 500, "headers": failed})
            await send({"type": "http.response.body", "body": b"{}"})
            return
        is_stream = bool(body) and orjson.loads(body).get("stream") is True
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
    """Serve until a signal ends the process."""
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
