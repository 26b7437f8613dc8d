"""Has requests served by tasks: by the application, or by the lookup that a repeat asks for.

The application gets a request as ASGI wants it, with its scope and its messages. A repeat whose
entry is looked up (`api/repeated/at_once.py`) does without: its task writes the answer itself. What
the lookup cannot answer, the same task hands on to the application.
"""

import asyncio
from typing import Any, cast
from urllib.parse import unquote

import httptools
from uvicorn._types import ASGI3Application, HTTPScope
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from cacheproxy.api.repeated.at_once import EARLIER, AtOnce, Later, WholeAnswer
from cacheproxy.server.http.exchange import HttpExchange
from cacheproxy.server.http.in_turn import InTurnProtocol
from cacheproxy.server.http.whole_answer import whole_answer

_ANSWER_S = 3e-5
"""Reckoned for an answer that comes after a lookup: to decode and to write a record (measured)."""


class _Awaited:
    """A request that is looked up, as far as the connection asks of the one in flight."""

    __slots__ = ("disconnected", "keep_alive", "response_complete")

    response_started = False
    body = b""
    message_event = asyncio.Event()  # nobody waits for it

    def __init__(self) -> None:
        self.disconnected = self.response_complete = False
        self.keep_alive = True


class ServingProtocol(InTurnProtocol):
    """A protocol that serves requests whose head or body has come whole."""

    def __init__(self, *args: Any, at_once: AtOnce, **others: Any) -> None:
        super().__init__(*args, **others)
        self._at_once = at_once

    def on_response_complete(self) -> None:
        """Go on with the next request."""
        raise NotImplementedError

    def _serve(self) -> None:
        """Serve the request whose head is complete, or queue it (as uvicorn's protocol does)."""
        parser, newest = self.parser, self.cycle
        version = parser.get_http_version()
        self.cycle = exchange = self._exchange(
            self.scope,
            self.url,
            method=parser.get_method().decode("ascii"),
            version=version,
            expect_100_continue=self.expect_100_continue,
            # No other protocol is spoken here than HTTP.
            keep_alive=version != "1.0"
            and parser.should_keep_alive()
            and not parser.should_upgrade(),
        )
        if newest is None or newest.response_complete:
            self._start_asgi_task(exchange, self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((exchange, self.app))

    def _exchange(
        self,
        scope: HTTPScope,
        url: bytes,
        *,
        method: str = "POST",
        version: str = "1.1",
        expect_100_continue: bool = False,
        keep_alive: bool = True,
    ) -> HttpExchange:
        """Complete a request's scope, and return what the application reads and answers."""
        parsed = httptools.parse_url(url)
        path = parsed.path.decode("ascii")
        scope["http_version"], scope["method"] = version, method
        scope["path"] = unquote(path) if "%" in path else path
        scope["raw_path"] = parsed.path
        scope["query_string"] = parsed.query or b""
        exchange = HttpExchange(
            scope=scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=expect_100_continue,
            keep_alive=keep_alive,
            on_response=self.on_response_complete,
        )
        exchange.tasks = self.tasks
        return exchange

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._start_in_turn(lambda: self.tasks.add(self.loop.create_task(cycle.run_asgi(app))))

    def _await(self, later: Later, body: bytes) -> None:
        """Answer the request whose `body` is complete after its lookup."""
        awaited = _Awaited()
        self.cycle = cast(RequestResponseCycle, awaited)
        # The parser may begin with the next request before the lookup ends.
        scope, url = self.scope, self.url
        # Not in turn, as it only begins a lookup here: many that begin together share a store call.
        self.tasks.add(self.loop.create_task(self._look_up(later, awaited, scope, url, body)))

    async def _look_up(
        self, later: Later, awaited: _Awaited, scope: HTTPScope, url: bytes, body: bytes
    ) -> None:
        try:
            answer = await later()
            if isinstance(answer, WholeAnswer):
                self._answer_awaited(awaited, answer)
                return
            cast(dict[str, Any], scope)[EARLIER] = answer
            exchange = self._exchange(scope, url, keep_alive=awaited.keep_alive)
            exchange.disconnected = awaited.disconnected
            exchange.body += body
            exchange.more_body = False
            exchange.message_event.set()
            if self.cycle is cast(RequestResponseCycle, awaited):
                self.cycle = exchange
            await exchange.run_asgi(self.app)
        finally:
            self.tasks.discard(cast("asyncio.Task[None]", asyncio.current_task()))

    def _answer_awaited(self, awaited: _Awaited, answer: WholeAnswer) -> None:
        awaited.response_complete = True
        if not awaited.disconnected:
            told = (*self.server_state.default_headers, *answer.headers)
            closes = not awaited.keep_alive or self._at_once.is_stopped
            if closes:
                told = (*told, (b"connection", b"close"))
            self.transport.write(whole_answer(200, told, answer.body))
            if closes:
                self.transport.close()
        self._turns.spend(_ANSWER_S)
        self.on_response_complete()
