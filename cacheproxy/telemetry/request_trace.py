"""One request as operators see it: its ids, in and out, and what its log line and its trace tell.

The HTTP edge makes a visit for each request and closes it; whoever serves the request notes what
it finds. Nothing of a prompt, a key or a vector is ever noted. Code that has no request in its
hands, such as a pipeline's stages or what calls an upstream, asks `current_visit`.
"""

import itertools
import re
import secrets
import time
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

VISIT = "cacheproxy.telemetry.request_trace"
"""Where a request's ASGI scope holds its visit."""

_GIVEN_ID = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")
_TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_TRACESTATE = re.compile(rb"[\x20-\x7e]{1,512}")

_PROCESS = secrets.token_hex(6).encode()
_numbers = itertools.count(1)


class Visit:
    """One request; made by the edge, noted in by whoever serves it.

    Attributes:
        headers: the request's, names in lower case.
        tells_id: whether an answer that is no error of ours tells the request's id, too: if the
            client sent one, or can find it in the log. In every answer it would cost a hot hit 2 %.
        traceparent: W3C trace context to be passed on, or None.
        tracestate: what belongs to it, or None.
        started: when it came, by `time.perf_counter`.
        status: of the answer.
        route: in our metrics' words, or the path of a service route; empty where there is none.
        model: the model's name, once it is known to be one of ours.
        namespace_id: the caller's namespace, a hash.
        outcome: which tier answered.
        texts: how many texts each tier answered, as in Cache-Status; None where it was one text.
        stages: name, start and end of each stage that it has been through (as `started`).
        span: what the tracer made of it.
    """

    # Defaults of the class: setting each in every request would cost as much as all else here.
    tells_id = False
    _request_id = b""
    traceparent: str | None = None
    tracestate: str | None = None
    status = 200
    route = model = namespace_id = outcome = ""
    texts: str | None = None
    stages: tuple[tuple[str, float, float], ...] = ()
    span: Any = None

    def __init__(self, headers: Mapping[bytes, bytes]) -> None:
        """Begin a visit with the request's headers."""
        self.headers = headers
        self.started = time.perf_counter()
        if b"x-request-id" in headers:
            self.tells_id = True
            given = headers[b"x-request-id"]
            if _GIVEN_ID.fullmatch(given):
                self._request_id = given
        if b"traceparent" in headers:
            self._read_trace(headers)

    @property
    def request_id(self) -> bytes:
        """The client's `X-Request-Id` if it is a usable one, else one of our own."""
        if not self._request_id:
            self._request_id = b"%b-%x" % (_PROCESS, next(_numbers))
        return self._request_id

    def _read_trace(self, headers: Mapping[bytes, bytes]) -> None:
        parts = _TRACEPARENT.fullmatch(headers[b"traceparent"])
        if parts is None:
            return
        version, trace_id, parent_id, flags, more = parts.groups()
        # Later versions may say more, which a 00 that we pass on does not have.
        if version == b"ff" or (version == b"00" and more is not None):
            return
        if not trace_id.strip(b"0") or not parent_id.strip(b"0"):
            return
        self.traceparent = b"-".join((b"00", trace_id, parent_id, flags)).decode()
        state = headers.get(b"tracestate", b"")
        if _TRACESTATE.fullmatch(state):
            self.tracestate = state.decode()

    def passed_on(self) -> dict[str, str]:
        """Return the headers that a request to an upstream carries on this one's behalf."""
        headers = {"x-request-id": self.request_id.decode()}
        if self.traceparent is not None:
            headers["traceparent"] = self.traceparent
            if self.tracestate is not None:
                headers["tracestate"] = self.tracestate
        return headers

    def stage_ended(self, name: str, started: float, ended: float) -> None:
        """Note a stage."""
        self.stages = (*self.stages, (name, started, ended))


_current: ContextVar[Visit | None] = ContextVar("visit", default=None)
current_visit = _current.get
"""Returns the visit that this task serves, or None."""

enter_visit = _current.set
"""Makes a visit the one that this task serves."""
