"""The journal: one log line, and one trace, for each request that has been answered.

A line holds ids, names, counts and times; never a prompt, a key, a vector, or the value of a header
other than the request id. `sampled` logs one request a second for each route and status: the log
shows an example of everything that happens, says how many requests it stands for, and stays small
under any load. Health probes, scrapes and the admin page are logged only if they fail.
"""

import logging
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from cacheproxy.keys import short_id
from cacheproxy.settings.sections import RequestLog
from cacheproxy.telemetry.request_trace import Visit, enter_visit
from cacheproxy.telemetry.tail import Tail
from cacheproxy.telemetry.tracing import Tracer

logger = logging.getLogger("cacheproxy.requests")

_EVERY_S = 1.0


class _Kind:
    """Requests of one route and status: when the next is due, and how many were skipped."""

    __slots__ = ("due", "unlogged")

    def __init__(self, route: str, status: int) -> None:
        # Probes and scrapes that succeed come all day long and are not worth a line.
        is_service = route.startswith("/") and status < 400
        self.due = math.inf if is_service else 0.0
        self.unlogged = 0


class Journal:
    """Opens and closes visits, on the event loop."""

    def __init__(
        self, requests: RequestLog, tracer: Tracer | None = None, tail: Tail | None = None
    ) -> None:
        """Log the `requests` asked for; trace all if there is a tracer; show a tail of them."""
        self._tracer, self._tail = tracer, tail
        self._kinds: dict[tuple[str, int], _Kind] = {}
        self.log(requests)

    def log(self, requests: RequestLog) -> None:
        """Log these requests from now on, if the log's level lets them through."""
        # No line is built for a log that would drop it.
        if requests == "off" or not logger.isEnabledFor(logging.INFO):
            self._tell: Callable[[Visit], None] = _tell_nobody
        else:
            self._tell = self._sample if requests == "sampled" else self._log
        self.close: Callable[[Visit], None] = self._tell if self._tracer is None else self._end
        """Writes the log line and the trace of a visit that has ended."""
        if self._tail is not None:
            self._end_untailed, self._note = self.close, self._tail.note
            self.close = self._end_tailed
        self.tells_ids = requests == "all" or self._tracer is not None
        """Whether every answer carries its request id, by which its line or trace can be found."""

    def open(self, headers: Mapping[bytes, bytes], *, is_traced: bool) -> Visit:
        """Open a visit for the current task; probes and scrapes are not traced."""
        visit = Visit(headers)
        enter_visit(visit)
        if self.tells_ids:
            visit.tells_id = True
            if self._tracer is not None and is_traced:
                self._tracer.begin(visit)
        return visit

    def _end(self, visit: Visit) -> None:
        if self._tracer is not None and visit.span is not None:
            self._tracer.end(visit)
        self._tell(visit)

    def _end_tailed(self, visit: Visit) -> None:
        self._note(visit)
        self._end_untailed(visit)

    def _sample(self, visit: Visit) -> None:
        kind = self._kinds.get((visit.route, visit.status))
        if kind is None:
            kind = _Kind(visit.route, visit.status)
            self._kinds[visit.route, visit.status] = kind
        if visit.started < kind.due:
            kind.unlogged += 1
            return
        kind.due = visit.started + _EVERY_S
        unlogged, kind.unlogged = kind.unlogged, 0
        self._log(visit, unlogged)

    def _log(self, visit: Visit, unlogged: int = 0) -> None:
        ended = time.perf_counter()
        told: dict[str, Any] = {
            "status": visit.status,
            "route": visit.route or "unknown",
            "duration_ms": round(1000 * (ended - visit.started), 3),
            "outcome": visit.texts or visit.outcome,
            "model": visit.model,
            "namespace": short_id(visit.namespace_id) if visit.namespace_id else "",
            "request_id": visit.request_id.decode(),
            "trace_id": visit.traceparent[3:35] if visit.traceparent else "",
            "stages_ms": {
                name: round(1000 * (end - start), 3) for name, start, end in visit.stages
            },
            "unlogged": unlogged,
        }
        logger.info(
            "request", extra={"fields": {name: value for name, value in told.items() if value}}
        )


def _tell_nobody(_: Visit) -> None:
    return
