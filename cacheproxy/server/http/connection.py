"""One HTTP/1.1 connection: uvicorn's protocol, with bounds on what a client can make it hold.

llhttp keeps a line until it is complete, and uvicorn keeps lines until the head is complete, both
without limit, before any API key is looked at. Here heads, trailers and URLs are bounded while they
arrive, and so are the time that a head may take, the pipelined requests of a connection, and the
connections of a process. Requests that break HTTP's rules are refused by llhttp, which is strict.

A request that the application can answer at once (`api/repeated/at_once.py`) is answered where it
was parsed: a task, an ASGI scope and two messages would cost more than the hit in the hot tier that
they are for. If its entry has to be looked up, a task does that, and writes the answer. As many
clients send a head and its body apart, it has a moment to become whole.

A refusal never overtakes an answer: requests that came before it on the connection are answered
first (`ending` has what follows the last answer).
"""

import asyncio
from typing import Any, cast

import httptools
from prometheus_client import Counter
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT

from cacheproxy.api.repeated.at_once import WholeAnswer
from cacheproxy.errors import ApiError, BadRequest, Unavailable
from cacheproxy.server.http.ending import DISCARD_S
from cacheproxy.server.http.serving import ServingProtocol
from cacheproxy.server.http.whole_answer import refusal, whole_answer
from cacheproxy.settings.limits import LimitSettings

_MOST_PIPELINED = 64
"""Requests of a connection that wait for earlier ones: some 4 kB each."""

_EARLY_S = 0.02
"""How long the rest of a body may take before its request is served as usual, by a task."""

_MOST_EARLY_BYTES = 8_192
"""The longest body for which that moment is waited: of the longest requests that are remembered."""

_MOST_REFUSED = 256
"""Connections beyond the limit that are told so; further ones are closed without a word."""


class HttpConnection(ServingProtocol):
    """uvicorn's protocol with limits; `shed` counts refusals by reason.

    Of what is given by name, each class below this one takes its own: `at_once` answers what it can
    without waiting, `turns` are the event loop's, for owners that `owner_of` tells.
    """

    def __init__(self, *args: Any, limits: LimitSettings, shed: Counter, **others: Any) -> None:
        super().__init__(*args, **others)
        self._limits = limits
        self._shed = shed
        self._early_body: bytes | None = None
        """What has come of a body before its request is served; None: it is, or there is none."""
        # Looked at for every request: spares the longer way through the settings.
        self._most_url_bytes = limits.url_bytes
        self._most_headers = limits.headers
        self._most_head_bytes = self._head_left = limits.header_bytes
        self._messages = 0
        self._has_got_content = False
        self._without_content = 0
        self._broken_rule: ApiError | None = None
        self._refusal: ApiError | None = None
        self._idle_since = 0.0

    # Called by the event loop.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request, or refuse the connection if there are too many."""
        super().connection_made(transport)
        beyond = len(self.connections) - self._limits.connections
        if beyond > 0:
            self._shed.labels("connections").inc()
            if beyond > _MOST_REFUSED:
                transport.abort()
                return
            message = f"the server has {self._limits.connections} connections open, its limit"
            self._refuse(Unavailable(message, code="too_many_connections", retry_after_s=1))
            return
        self._set_timer(self._limits.head_timeout_s, self._head_is_late)

    def _receive(self, data: bytes) -> None:
        """Parse what has arrived; refuse it where it breaks a rule or a limit."""
        if self._is_deaf:
            return
        try:
            if not self._in_head or len(data) <= self._head_left:
                self._feed(data)
            else:
                rest = memoryview(data)
                while rest:
                    most = max(1, self._head_left) if self._in_head else len(rest)
                    self._feed(rest[:most])
                    rest = rest[most:]
        except httptools.HttpParserUpgrade:
            # No other protocol is spoken here. The request is answered, and what follows it is in
            # a protocol that only the client knows.
            self._is_deaf = True
        except (httptools.HttpParserError, ApiError):
            if self._early_body is not None:
                self._serve_early()
            broken = self._broken_rule
            if broken is None:
                broken = BadRequest("the request is not valid HTTP/1.1", code="invalid_http")
            else:
                self._shed.labels("head").inc()
            self._refuse(broken)
        else:
            if self._in_head and self._timer is None and (self._has_begun or self._is_idle()):
                self._set_timer(self._limits.head_timeout_s, self._head_is_late)

    # Called by the parser.

    def on_url(self, url: bytes) -> None:
        """Collect the URL up to its limit; a head has begun."""
        self._has_begun = True
        self.url += url
        if len(self.url) > self._most_url_bytes:
            most = f"the URL is longer than {self._limits.url_bytes} bytes"
            raise self._breaks(BadRequest(most, status=414, code="url_too_long"))

    def on_headers_complete(self) -> None:
        """Have the request served, or queued behind earlier ones of the connection."""
        if len(self.headers) > self._most_headers:
            raise self._breaks(self._too_large())
        if len(self.pipeline) >= _MOST_PIPELINED:
            message = f"more than {_MOST_PIPELINED} requests wait for earlier ones on a connection"
            raise self._breaks(Unavailable(message, code="too_many_pipelined", retry_after_s=1))
        if self._may_be_answered_at_once():
            self._early_body = b""
        else:
            self._serve()
        self.headers = []  # of the trailer, which is not merged into the head (RFC 9110, 6.5.1)
        self._in_head, self._has_got_content, self._without_content = False, True, 0
        self._cancel_timer()

    def on_body(self, body: bytes) -> None:
        """Keep a part of the body for the application to read."""
        self._has_got_content = True
        if self._early_body is not None:
            self._early_body += body
            if len(self._early_body) > _MOST_EARLY_BYTES:
                self._serve_early()
            return
        cycle = self.cycle
        if not cycle.response_complete:
            cycle.body += body
            if len(cycle.body) > HIGH_WATER_LIMIT:
                self.flow.pause_reading()
            cycle.message_event.set()

    def on_message_complete(self) -> None:
        """Be ready for the next head."""
        if len(self.headers) > self._most_headers:  # of the trailer
            raise self._breaks(self._too_large())
        self._in_head, self._has_begun = True, False
        self._head_left = self._most_head_bytes
        self._messages += 1
        if self._early_body is not None:
            if self._answer_at_once(self._early_body):
                return
            self._serve_early()
        cycle = self.cycle
        if not cycle.response_complete:
            cycle.more_body = False
            cycle.message_event.set()
        elif not self.is_ending:
            self._cancel_timer()
            self._wait_for_next()

    # Called by the request that has been answered.

    def on_response_complete(self) -> None:
        """Go on with the next request; drop what is left of this one."""
        self.server_state.total_requests += 1
        newest = self.cycle
        if newest.response_complete and newest.body:
            newest.body = bytearray()
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._refusal is not None:
            self._send_refusal(self._refusal)
        elif self._in_head:
            self._wait_for_next()
        else:
            self._set_timer(DISCARD_S, self.transport.close)

    # Called by the server.

    def shutdown(self) -> None:
        """Close the connection after the request in flight, at once if there is none."""
        self._receive_held()
        if self._early_body is not None:
            self._serve_early()
        super().shutdown()

    # Within.

    def _may_be_answered_at_once(self) -> bool:
        parser = self.parser
        return (
            self.url in self._at_once.urls
            and self._is_idle()
            and not self.flow.write_paused
            and not self.expect_100_continue
            and parser.get_method() == b"POST"
            and parser.get_http_version() == "1.1"
            and parser.should_keep_alive()
            and not parser.should_upgrade()
        )

    def _answer_at_once(self, body: bytes) -> bool:
        headers = cast(list[tuple[bytes, bytes]], self.scope["headers"])
        answer = self._at_once(self.url, headers, body)
        if answer is None:
            return False
        self._early_body = None
        if self._timer is not None:
            self._cancel_timer()
        if isinstance(answer, WholeAnswer):
            told = (*self.server_state.default_headers, *answer.headers)
            self.transport.write(whole_answer(200, told, answer.body))
            self.server_state.total_requests += 1
            self._wait_for_next()
        else:
            self._await(answer, body)
        return True

    def _serve_early(self) -> None:
        """Serve a request as usual that could not be answered at once."""
        body, self._early_body = self._early_body, None
        self._cancel_timer()
        self._serve()
        if body:
            self.on_body(body)

    def _feed(self, part: bytes | memoryview) -> None:
        messages, was_in_head = self._messages, self._in_head
        self._has_got_content = False
        self.parser.feed_data(part)
        if self._in_head:
            if not self._has_begun:
                return
            if self._messages == messages:
                self._head_left -= len(part)
                if self._head_left <= 0:
                    raise self._breaks(self._too_large())
        elif not was_in_head and not self._has_got_content:
            # Lengths of chunks, their extensions, or a trailer: the parser may be keeping it.
            self._without_content += len(part)
            if self._without_content > self._limits.header_bytes:
                raise self._breaks(self._too_large())
        else:
            self._without_content = 0
        if self._early_body is not None and self._timer is None:
            self._set_timer(_EARLY_S, self._serve_early)
        if len(self.headers) > self._most_headers:
            raise self._breaks(self._too_large())

    def _too_large(self) -> ApiError:
        return BadRequest(
            f"a request may have {self._limits.headers} header lines, and "
            f"{self._limits.header_bytes} bytes of them",
            status=431,
            code="headers_too_large",
        )

    def _breaks(self, rule: ApiError) -> ApiError:
        self._broken_rule = rule  # the parser replaces what its callbacks raise
        return rule

    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _head_is_late(self) -> None:
        self._timer = None
        if not self._has_begun:
            self.transport.close()
            return
        self._shed.labels("slow_head").inc()
        message = f"the request's head did not arrive within {self._limits.head_timeout_s:g} s"
        self._refuse(BadRequest(message, status=408, code="head_timeout"))

    def _refuse(self, error: ApiError) -> None:
        """Parse nothing more; send the error in its turn, and close."""
        self._is_deaf = True
        self._refusal = error
        self._cancel_timer()
        cycle = self.cycle
        if not self._in_head and not cycle.response_complete:
            if self.pipeline:
                self.pipeline.popleft()  # this very request; those before it are answered first
                return
            # The request in flight, which is reading its body.
            cycle.disconnected = True
            cycle.message_event.set()
            if cycle.response_started:
                self.transport.close()
                return
        elif self.pipeline or not self._is_idle():
            return
        self._send_refusal(error)

    def _send_refusal(self, error: ApiError) -> None:
        self.transport.write(refusal(error))
        self.transport.close()

    def _wait_for_next(self) -> None:
        # One timer serves many requests: to cancel it and to set another costs as much as to parse
        # a head.
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def timeout_keep_alive_handler(self) -> None:
        """Close the connection if it has been idle for so long; else look again in time."""
        self.timeout_keep_alive_task = None
        is_between = self._in_head and not self._has_begun and not self._held
        if self.is_ending or not is_between or not self._is_idle():
            return  # when it is idle again, it waits anew
        left_s = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left_s > 0:
            self.timeout_keep_alive_task = self.loop.call_later(
                left_s, self.timeout_keep_alive_handler
            )
        else:
            self.transport.close()
