"""Requests that are answered where they were parsed: repeats, whose key is known by their bytes.

The connection offers each request that has come whole before it has the application serve it. If
nothing about the request calls for more (no control of the cache, no limits of its tenant, no
request id or trace), an endpoint answers at once from the hot tier. What is not there it looks up
in the exact tier, and answers then: reading the request and sending the answer through ASGI would
cost more than that lookup. Everything else, misses and errors included, goes the usual way, and no
answer has been counted then.
"""

import logging
from collections.abc import Callable, Collection, Coroutine, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

from cacheproxy.api.callers import Callers
from cacheproxy.api.control import is_plain
from cacheproxy.api.presentation import Headers
from cacheproxy.api.repeated.repeats import Repeats
from cacheproxy.fairness.owner import work_for
from cacheproxy.routes.repeated import Repeated
from cacheproxy.telemetry.journal import Journal
from cacheproxy.telemetry.request_trace import Visit, enter_visit

logger = logging.getLogger(__name__)

Way = TypeVar("Way")


class WholeAnswer(NamedTuple):
    """An answer with the status 200."""

    body: bytes
    headers: Headers


class Earlier(NamedTuple):
    """What was done for a request before it goes the usual way, where its scope has it.

    Attributes:
        visit: that was opened for it.
        repeated: what the exact tier had for it; None if that could not be told.
    """

    visit: Visit
    repeated: Repeated[Any] | None


EARLIER = "cacheproxy.earlier"
"""Key of `Earlier` in a request's ASGI scope."""

Later = Callable[[], Coroutine[Any, Any, WholeAnswer | Earlier]]
"""Looks a repeat up in the exact tier, in a task of its own."""


@runtime_checkable
class AnswersAtOnce(Protocol):
    """An endpoint that can answer some requests without being called."""

    def knows(self, body: bytes) -> bool:
        """Return whether a request with this body may be answered at once."""

    def at_once(self, visit: Visit, body: bytes) -> WholeAnswer | Later | None:
        """Answer a request, and count it, now or after a lookup; None if that takes more."""


def repeat_of(visit: Visit, body: bytes, callers: Callers, repeats: Repeats[Way]) -> Way | None:
    """Return what a request repeats, and note whose it is; None if it is to go the usual way."""
    headers = visit.headers
    if not is_plain(headers) or (caller := callers.unlimited(headers)) is None:
        return None
    visit.namespace_id, visit.owner = caller.namespace.id, callers.owner_for(caller)
    return repeats.get(visit.namespace_id, body)


class AtOnce:
    """Answers requests to the endpoints that can answer without being called.

    Attributes:
        is_stopped: whether it answers nothing any more, since connections are to be closed.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._endpoints: dict[bytes, AnswersAtOnce] = {}
        self.is_stopped = False

    @property
    def urls(self) -> Collection[bytes]:
        """The URLs that are worth asking for."""
        return self._endpoints.keys()

    def add(self, path: str, endpoint: AnswersAtOnce) -> None:
        """Have an endpoint asked about `POST` requests to its path."""
        self._endpoints[path.encode()] = endpoint

    def stop(self) -> None:
        """Answer nothing any more."""
        self.is_stopped = True
        self._endpoints.clear()

    def __call__(
        self, url: bytes, raw_headers: Sequence[tuple[bytes, bytes]], body: bytes
    ) -> WholeAnswer | Later | None:
        """Answer a `POST` request of HTTP/1.1, now or after a lookup; None if that takes more."""
        endpoint = self._endpoints.get(url)  # None: the server has begun to leave
        if endpoint is None or not endpoint.knows(body):
            return None
        headers = dict(raw_headers)
        if len(headers) != len(raw_headers) or b"host" not in headers:
            return None
        if b"content-encoding" in headers:
            return None
        visit = Visit(headers)
        if visit.tells_id or self._journal.tells_ids:
            return None
        try:
            answer = endpoint.at_once(visit, body)
        except Exception:
            # To the parser, which called, it would mean that the request is malformed.
            logger.exception("a request was not answered at once; it goes the usual way")
            return None
        if answer is None or isinstance(answer, WholeAnswer):
            if answer is not None:
                self._journal.close(visit)
            return answer
        return partial(self._look_up, visit, answer)

    async def _look_up(self, visit: Visit, later: Later) -> WholeAnswer | Earlier:
        enter_visit(visit)
        work_for(visit.owner)
        try:
            answer = await later()
        except Exception:
            logger.exception("a repeated request was not answered; it goes the usual way")
            return Earlier(visit, None)
        if isinstance(answer, WholeAnswer):
            self._journal.close(visit)
        return answer
