"""Bytes on a connection: the server's own HTTP protocol on a transport without a network."""

import asyncio
import functools
from typing import Any

import httptools
import uvicorn
from uvicorn.server import ServerState

from cacheproxy.api.connection import ClientGone
from cacheproxy.api.repeated.at_once import AtOnce, Earlier, Later, WholeAnswer
from cacheproxy.api.request.body import read_body
from cacheproxy.errors import ApiError
from cacheproxy.fairness.loop_turns import LoopTurns
from cacheproxy.server.http.connection import HttpConnection
from cacheproxy.settings.limits import LimitSettings
from cacheproxy.telemetry.journal import Journal
from cacheproxy.telemetry.metrics import Metrics
from cacheproxy.telemetry.request_trace import Visit

_LIMITS = LimitSettings(header_bytes=1_024, headers=8, url_bytes=64, body_bytes=1_024)
_METRICS = Metrics()
_JOURNAL = Journal("off")
_TURNS = 12


_failures: list[BaseException] = []
_methods: set[str] = set()


async def _application(scope: dict, receive: Any, send: Any) -> None:
    """Serve, and keep what goes wrong: the server would log it, and answer with a 500."""
    _methods.add(scope["method"])
    try:
        await _serve(scope, receive, send)
    except Exception as error:
        _failures.append(error)


async def _serve(scope: dict, receive: Any, send: Any) -> None:
    """Read the body and answer, as the endpoints do."""
    status = 200
    try:
        await read_body(dict(scope["headers"]), receive, max_bytes=1_024)
    except ApiError as error:
        status = error.status
    except ClientGone:
        return
    headers = [(b"content-length", b"2")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"{}"})


class _Short:
    """Answers what has a short body at once, or after a lookup."""

    def knows(self, body: bytes) -> bool:
        return len(body) < 4

    def at_once(self, visit: Visit, body: bytes) -> WholeAnswer | Later | None:
        if len(body) < 2:
            return functools.partial(self._look_up, visit, body)
        return WholeAnswer(b"{}", []) if len(body) < 3 else None

    async def _look_up(self, visit: Visit, body: bytes) -> WholeAnswer | Earlier:
        await asyncio.sleep(0)
        return WholeAnswer(b"{}", []) if body else Earlier(visit, None)


class _Transport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.written = bytearray()
        self.is_closed = False

    def write(self, data: Any) -> None:
        self.written += data

    def close(self) -> None:
        self.is_closed = True

    abort = close

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.is_closed = True

    def is_closing(self) -> bool:
        return self.is_closed

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class _Answers:
    """Reads what was written, and complains of what is no answer."""

    def __init__(self) -> None:
        self.count = 0

    def on_message_complete(self) -> None:
        self.count += 1


_AT_ONCE = AtOnce(_JOURNAL)
_AT_ONCE.add("/", _Short())
_LOOP = asyncio.new_event_loop()
_CONFIG = uvicorn.Config(_application, interface="asgi3", lifespan="off", log_config=None)
_CONFIG.http_protocol_class = functools.partial(  # type: ignore[assignment]
    HttpConnection,
    limits=_LIMITS,
    shed=_METRICS.shed,
    at_once=_AT_ONCE,
    turns=LoopTurns(),
    owner_of=lambda headers: "",
)
_CONFIG.loaded = True
_CONFIG.loaded_app = _application
_CONFIG.encoded_headers = []
_CONFIG.ws_protocol_class = None


def http_connection(data: bytes) -> None:
    """A connection: whole answers only, however the bytes come; after an error it ends."""
    whole, cut = _answers_to([data]), _answers_to([data[i : i + 7] for i in range(0, len(data), 7)])
    assert cut >= min(whole, 1)


def _answers_to(parts: list[bytes]) -> int:
    return _LOOP.run_until_complete(_exchange(parts))


async def _exchange(parts: list[bytes]) -> int:
    _failures.clear()
    _methods.clear()
    _LOOP.set_exception_handler(lambda _, told: _failures.append(told.get("exception") or told))
    transport = _Transport()
    protocol = _CONFIG.http_protocol_class(
        config=_CONFIG, server_state=ServerState(), app_state={}, _loop=_LOOP
    )
    protocol.connection_made(transport)
    for part in parts:
        protocol.data_received(part)
        await asyncio.sleep(0)
    for _ in range(_TURNS):
        await asyncio.sleep(0)
    answers = _Answers()
    # Answers to HEAD have a length and no body; the parser does not know what was asked.
    if transport.written and not _methods & {"HEAD", "CONNECT"}:
        httptools.HttpResponseParser(answers).feed_data(bytes(transport.written))
    protocol.connection_lost(None)
    await asyncio.sleep(0)
    assert not _failures, _failures
    return answers.count
