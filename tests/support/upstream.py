"""A scripted upstream: a real OpenAI-compatible HTTP server that does what a test tells it to.

It runs on a thread of its own and speaks HTTP/1.1 byte by byte, so that it can stall, break off and
drip. What it is not told otherwise, it answers as `answer_to` says.
"""

import asyncio
import json
import ssl
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from other_apis import OTHER_APIS

CREATED = 1_700_000_000


def answer_to(question: str) -> str:
    return f"You asked: {question}"


@dataclass
class Asked:
    """One request that came."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    raw: bytes
    number: int

    @property
    def question(self) -> str:
        field = {"/v1/responses": "input", "/v1/completions": "prompt"}.get(self.path, "messages")
        given = self.body[field]
        last = given if isinstance(given, str) else given[-1]["content"]
        if isinstance(last, list) and all("text" in part for part in last):
            return "\n".join(part["text"] for part in last)
        return str(last)

    @property
    def judged_pair(self) -> dict[str, str] | None:
        """The pair that the proxy asks a judge about; None if this is a client's request."""
        if self.path != "/v1/chat/completions":
            return None
        try:
            pair = json.loads(self.question)
        except (ValueError, LookupError, TypeError):  # a client may send anything as messages
            return None
        return pair if isinstance(pair, dict) and {"question", "answer"} <= pair.keys() else None


@dataclass
class Exchange:
    """One request and the connection on which to answer it."""

    asked: Asked
    writer: asyncio.StreamWriter
    left: asyncio.Event = field(default_factory=asyncio.Event)

    async def write(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(
        self, status: int, body: bytes, content_type: str = "application/json", **headers: str
    ) -> None:
        given = {"content-type": content_type, "content-length": str(len(body)), **headers}
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in given.items())
        await self.write(f"HTTP/1.1 {status} X\r\n{lines}\r\n".encode() + body)

    async def begin_stream(self, content_type: str = "text/event-stream") -> None:
        head = f"HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ntransfer-encoding: chunked\r\n"
        await self.write(f"{head}\r\n".encode())

    async def chunk(self, data: bytes) -> None:
        await self.write(b"%x\r\n%b\r\n" % (len(data), data))

    async def event(self, value: Any) -> None:
        await self.chunk(b"data: " + json.dumps(value).encode() + b"\n\n")

    async def end_stream(self, *, done: bool = True) -> None:
        if done:
            await self.chunk(b"data: [DONE]\n\n")
        await self.write(b"0\r\n\r\n")

    def break_off(self) -> None:
        """Reset the connection."""
        self.writer.transport.abort()


Behaviour = Callable[[Exchange], Awaitable[None]]


def completion(asked: Asked, text: str | None = None, **choice: Any) -> dict[str, Any]:
    text = answer_to(asked.question) if text is None else text
    message = {"role": "assistant", "content": text}
    prompt = len(asked.question.split())
    completed = len(text.split())
    return {
        "id": f"chatcmpl-{asked.number}",
        "object": "chat.completion",
        "created": CREATED,
        "model": asked.body["model"],
        "system_fingerprint": "fp_test",
        "x_unknown": {"kept": True},
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}]
        if not choice
        else [{"index": 0, "message": message, "finish_reason": "stop", **choice}],
        "usage": {
            "prompt_tokens": prompt,
            "completion_tokens": completed,
            "total_tokens": prompt + completed,
        },
    }


def chunks(asked: Asked, text: str | None = None, finish: str = "stop") -> list[dict[str, Any]]:
    """Return the chunks of a stream, the last one with the usage if that is asked for."""
    text = answer_to(asked.question) if text is None else text
    base = {
        "id": f"chatcmpl-{asked.number}",
        "object": "chat.completion.chunk",
        "created": CREATED,
        "model": asked.body["model"],
    }

    def chunk(delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return {**base, "choices": [choice]}

    words = text.split(" ")
    pieces = [words[0], *(" " + word for word in words[1:])]
    told = [chunk({"role": "assistant", "content": ""})]
    told += [chunk({"content": piece}) for piece in pieces]
    told.append(chunk({}, finish))
    if (asked.body.get("stream_options") or {}).get("include_usage"):
        told.append({**base, "choices": [], "usage": completion(asked, text)["usage"]})
    return told


async def well_behaved(exchange: Exchange) -> None:
    asked = exchange.asked
    if other := OTHER_APIS.get(asked.path.removeprefix("/v1")):
        whole, events = other
        if not asked.body.get("stream"):
            await exchange.answer(200, json.dumps(whole(asked)).encode())
            return
        await exchange.begin_stream()
        for told in events(asked):
            name = f"event: {told['type']}\n" if "type" in told else ""
            await exchange.chunk(f"{name}data: {json.dumps(told)}\n\n".encode())
        await exchange.end_stream(done=asked.path.endswith("/completions"))
        return
    if asked.body.get("stream"):
        await exchange.begin_stream()
        for chunk in chunks(asked):
            await exchange.event(chunk)
        await exchange.end_stream()
    else:
        await exchange.answer(200, json.dumps(completion(asked)).encode())


def says(status: int, body: bytes, content_type: str = "application/json", **headers: str):
    """Return a behaviour that answers one thing."""

    async def behave(exchange: Exchange) -> None:
        await exchange.answer(status, body, content_type, **headers)

    return behave


class Gate:
    """Something that a behaviour waits for, and a test opens."""

    def __init__(self, upstream: "Upstream") -> None:
        self._loop = upstream.loop
        self._open = asyncio.Event()

    def open(self) -> None:
        self._loop.call_soon_threadsafe(self._open.set)

    async def passed(self) -> None:
        await self._open.wait()


class Upstream:
    """The server; `plan` holds what it does with the next requests of clients.

    Two kinds of requests come when the proxy decides, and leave the plan alone: `always` answers
    those to a judge, and `listing` those for the list of models, which are not in `asked` either.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self.asked: list[Asked] = []
        self.plan: deque[Behaviour] = deque()
        self.always: Behaviour = well_behaved
        self.listing: Behaviour = says(404, b"")
        self.lists_asked: list[Asked] = []
        self.left = 0
        self.connections = 0
        self.loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(10)

    @property
    def url(self) -> str:
        return f"http{'s' if self._tls else ''}://127.0.0.1:{self.port}/v1"

    def __len__(self) -> int:
        """How many requests of clients came; those to a judge come in their own time."""
        return sum(asked.judged_pair is None for asked in self.asked)

    @property
    def last(self) -> Asked:
        """The last request of a client."""
        return next(asked for asked in reversed(self.asked) if asked.judged_pair is None)

    def gate(self) -> Gate:
        return Gate(self)

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self.loop).result(10)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()

    async def _end(self) -> None:
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def vanish(self) -> None:
        """Refuse connections from now on, and reset those that are there."""
        done = threading.Event()

        def close() -> None:
            self._server.close()
            for writer in list(self._writers):
                writer.transport.abort()
            done.set()

        self.loop.call_soon_threadsafe(close)
        assert done.wait(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self._writers: set[asyncio.StreamWriter] = set()
        self._server = self.loop.run_until_complete(
            asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        )
        self.port = self._server.sockets[0].getsockname()[1]
        self._ready.set()
        self.loop.run_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                first, *lines = head.decode("latin-1").split("\r\n")
                headers = {
                    name.lower(): value.strip()
                    for name, _, value in (line.partition(":") for line in lines if line)
                }
                raw = await reader.readexactly(int(headers.get("content-length", 0)))
                body = json.loads(raw) if raw else {}
                asked = Asked(first.split(" ")[1], headers, body, raw, len(self.asked))
                exchange = Exchange(asked, writer)
                if asked.path == "/v1/models":
                    self.lists_asked.append(asked)
                    behave = self.listing
                else:
                    self.asked.append(asked)
                    is_planned = self.plan and asked.judged_pair is None
                    behave = self.plan.popleft() if is_planned else self.always
                await self._behave(behave, exchange, reader)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _behave(
        self, behave: Behaviour, exchange: Exchange, reader: asyncio.StreamReader
    ) -> None:
        """Answer, and notice meanwhile if the other side leaves."""
        work = asyncio.ensure_future(behave(exchange))
        while not work.done():
            await asyncio.wait({work}, timeout=0.01)
            if not work.done() and (reader.at_eof() or exchange.writer.is_closing()):
                self.left += 1
                exchange.left.set()
                work.cancel()
                await asyncio.wait({work})
                raise ConnectionResetError
        work.result()
