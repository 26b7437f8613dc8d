"""One request as operators see it: its ids, and the facts for its log line and its trace.

The HTTP edge opens a visit for each request and closes it; the code that serves the request adds
facts to it. Nothing of a prompt, a key or a vector is ever recorded. Code without a request at
hand, such as the stages of a route or the client of an upstream, calls `current_visit`.
"""

import itertools
import re
import secrets
import time
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

VISIT = "cacheproxy.visit"
"""Key of the visit in a request's ASGI scope."""

_GIVEN_ID = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")
_TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_TRACESTATE = re.compile(rb"[\x20-\x7e]{1,512}")

_SAMPLED = 1
"""The flag of a trace that the caller may have recorded."""

_PROCESS = secrets.token_hex(6).encode()
_numbers = itertools.count(1)


class Visit:
    """One request, opened by the edge; the code that serves it fills it in.

    Attributes:
        headers: of the request, names in lower case.
        tells_id: whether successful answers carry the request id: if the client sent one, or if the
            log or a trace has it. Sending it in every answer would cost a hot hit 2 %.
        traceparent, tracestate: W3C trace context to pass on, or None.
        started: time of arrival, by `time.perf_counter`.
        status: of the answer.
        route: its label in the metrics, or the path of a service route; empty if none matched.
        model: name of the model, once it is known to be served.
        namespace_id: the caller's namespace, a hash.
        owner: whom the task of a repeated request works for.
        outcome: the tier that answered.
        variant: what counts it as a model's or its canary's; None where there is no canary.
        texts: number of texts that each tier answered, as in Cache-Status; None for one text.
        stages: name, start and end of each stage so far (as `started`).
        span: the tracer's span.
    """

    # Class defaults: setting each for every request would cost as much as the rest of this class.
    tells_id = False
    _request_id = b""
    traceparent: str | None = None
    tracestate: str | None = None
    status = 200
    route = model = namespace_id = owner = outcome = ""
    texts: str | None = None
    variant: Any = None
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
        """The client's `X-Request-Id` if it is well formed, else a generated one."""
        if not self._request_id:
            self._request_id = b"%b-%x" % (_PROCESS, next(_numbers))
        return self._request_id

    def _read_trace(self, headers: Mapping[bytes, bytes]) -> None:
        parts = _TRACEPARENT.fullmatch(headers[b"traceparent"])
        if parts is None:
            return
        version, trace_id, parent_id, flags, more = parts.groups()
        # Later versions may have more fields; what we pass on is version 00, which has none.
        if version == b"ff" or (version == b"00" and more is not None):
            return
        if not trace_id.strip(b"0") or not parent_id.strip(b"0"):
            return
        self.traceparent = b"-".join((b"00", trace_id, parent_id, flags)).decode()
        state = headers.get(b"tracestate", b"")
        if _TRACESTATE.fullmatch(state):
            self.tracestate = state.decode()

    @property
    def sampled_trace(self) -> str | None:
        """The id of its trace, if that is recorded; None without a trace."""
        given = self.traceparent
        if given is None or not int(given[-2:], 16) & _SAMPLED:
            return None
        return given[3:35]

    def passed_on(self) -> dict[str, str]:
        """Return the headers that carry the ids to an upstream."""
        headers = {"x-request-id": self.request_id.decode()}
        if self.traceparent is not None:
            headers["traceparent"] = self.traceparent
            if self.tracestate is not None:
                headers["tracestate"] = self.tracestate
        return headers


_current: ContextVar[Visit | None] = ContextVar("visit", default=None)
current_visit = _current.get
"""Returns the visit of the current task, or None."""

enter_visit = _current.set
"""Sets the visit of the current task."""
