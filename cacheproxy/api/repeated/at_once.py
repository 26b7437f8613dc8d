"""Requests that are answered at once: repeats whose answer is in the hot tier.

The connection offers each request that has come whole before it starts a task for it. An endpoint
answers if the request's bytes and namespace lead to an entry of the hot tier, and if nothing about
the request calls for more: no control of the cache, no limits of its tenant, no request id or
trace. Everything else, errors included, goes the usual way, and nothing has been counted then.
"""

import logging
from collections.abc import Collection, Sequence
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

from cacheproxy.api.callers import Callers
from cacheproxy.api.control import is_plain
from cacheproxy.api.presentation import Headers
from cacheproxy.api.repeated.repeats import Repeats
from cacheproxy.telemetry.journal import Journal
from cacheproxy.telemetry.request_trace import Visit

logger = logging.getLogger(__name__)

Way = TypeVar("Way")


class WholeAnswer(NamedTuple):
    """An answer with the status 200."""

    body: bytes
    headers: Headers


@runtime_checkable
class AnswersAtOnce(Protocol):
    """An endpoint that can answer some requests without waiting, if there is a hot tier."""

    @property
    def has_hot(self) -> bool: ...

    def knows(self, body: bytes) -> bool:
        """Return whether a request with this body may be answered at once."""

    def at_once(self, visit: Visit, body: bytes) -> WholeAnswer | None:
        """Answer a request, and count it; None if that takes more."""


def repeat_of(visit: Visit, body: bytes, callers: Callers, repeats: Repeats[Way]) -> Way | None:
    """Return what a request repeats, and note its namespace; None if it is to go the usual way."""
    headers = visit.headers
    if not is_plain(headers) or (caller := callers.unlimited(headers)) is None:
        return None
    visit.namespace_id = caller.namespace.id
    return repeats.get(visit.namespace_id, body)


class AtOnce:
    """Answers requests to the endpoints that can answer without waiting."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._endpoints: dict[bytes, AnswersAtOnce] = {}

    @property
    def urls(self) -> Collection[bytes]:
        """The URLs that are worth asking for."""
        return self._endpoints.keys()

    def add(self, path: str, endpoint: AnswersAtOnce) -> None:
        """Have an endpoint asked about `POST` requests to its path."""
        self._endpoints[path.encode()] = endpoint

    def stop(self) -> None:
        """Answer nothing any more."""
        self._endpoints.clear()

    def __call__(
        self, url: bytes, raw_headers: Sequence[tuple[bytes, bytes]], body: bytes
    ) -> WholeAnswer | None:
        """Answer a `POST` request of HTTP/1.1; None if that takes more."""
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
        if answer is not None:
            self._journal.close(visit)
        return answer
