"""A sampled tail of requests for the built-in page: the last ones, in a ring, without any text.

Of all requests, and of the failed ones besides, the first of each tenth of a second is kept: a
glance at what happens, whose cost does not grow with the load. Probes and scrapes are left out.
"""

import math
import time
from collections import deque
from typing import Annotated

import msgspec
from msgspec import Meta

from cacheproxy.keys import short_id
from cacheproxy.telemetry.request_trace import Visit

_KEPT = 100
_EVERY_S = 0.1


class TailedRequest(msgspec.Struct, frozen=True):
    """One request of the tail."""

    at: Annotated[float, Meta(description="When it was answered; Unix time, seconds.")]
    worker: Annotated[int, Meta(description="The process id of the worker.")]
    route: str
    model: str
    namespace: Annotated[str, Meta(description="The first 12 characters of the namespace's id.")]
    tier: Annotated[str, Meta(description="Which tier answered: with several texts, how many.")]
    status: int
    duration_ms: float
    request_id: Annotated[str, Meta(description="If the log, the trace or the client has it.")]


class Tail:
    """The last requests of this process; belongs to its event loop."""

    def __init__(self, worker: int) -> None:
        """Start empty; `worker` is the id of this process."""
        self._worker = worker
        self._requests: deque[TailedRequest] = deque(maxlen=_KEPT)
        self._due = self._failed_due = -math.inf

    def note(self, visit: Visit) -> None:
        """Keep a request that has been answered, if its turn has come."""
        if visit.started < self._due and (visit.status < 400 or visit.started < self._failed_due):
            return
        if visit.status < 400:
            if visit.route.startswith("/"):
                return
            self._due = visit.started + _EVERY_S
        else:
            self._failed_due = visit.started + _EVERY_S
        duration_s = time.perf_counter() - visit.started
        self._requests.append(
            TailedRequest(
                at=round(time.time(), 3),
                worker=self._worker,
                route=visit.route or "unknown",
                model=visit.model,
                namespace=short_id(visit.namespace_id) if visit.namespace_id else "",
                tier=visit.texts or visit.outcome,
                status=visit.status,
                duration_ms=round(1000 * duration_s, 3),
                request_id=visit.request_id.decode() if visit.tells_id else "",
            )
        )

    def last(self) -> list[TailedRequest]:
        """Return the requests, the oldest first."""
        return list(self._requests)
