"""A budget of bytes for the request bodies of a process, in all and for each caller.

A body is counted before it is read, by its `Content-Length`, and until its request is answered. So
the memory that bodies take is bounded however many connections send one at the same time.
"""

from collections.abc import Callable

from prometheus_client import Counter

from cacheproxy.errors import BadRequest, Unavailable

_RETRY_S = 1.0
"""Bodies are held for as long as requests take: a second is the shortest that can be told."""


class BodyBudget:
    """Counts the bytes of bodies; belongs to one event loop."""

    def __init__(
        self,
        *,
        all_bytes: int,
        caller_bytes: int,
        shed: Counter,
        freed: Callable[[int], None],
    ) -> None:
        """Allow so many bytes for all bodies, and for one caller's; `freed` hears what ends."""
        self._all_bytes = all_bytes
        self._caller_bytes = caller_bytes
        self._shed = shed
        self._freed = freed
        self._taken = 0
        self._taken_by: dict[str, int] = {}

    @property
    def taken_bytes(self) -> int:
        """Bytes that are taken at the moment."""
        return self._taken

    def take(self, caller: str, size: int) -> None:
        """Take so many bytes for a caller.

        Raises:
            BadRequest: the budget will never have so many (413).
            Unavailable: other bodies have taken them (503).
        """
        taken = self._taken_by.get(caller, 0)
        if taken + size <= self._caller_bytes and self._taken + size <= self._all_bytes:
            self._taken += size
            self._taken_by[caller] = taken + size
            return
        self._shed.labels("bodies").inc()
        most = min(self._caller_bytes, self._all_bytes)
        if size > most:
            message = f"the request body is larger than {most} bytes"
            raise BadRequest(message, status=413, code="request_too_large")
        whose = "this caller" if taken + size > self._caller_bytes else "all callers"
        raise Unavailable(
            f"the request bodies of {whose} take all the memory that they may",
            code="bodies_full",
            retry_after_s=_RETRY_S,
        )

    def give_back(self, caller: str, size: int) -> None:
        """Give bytes back that were taken."""
        self._taken -= size
        left = self._taken_by[caller] - size
        if left:
            self._taken_by[caller] = left
        else:
            del self._taken_by[caller]
        self._freed(size)
