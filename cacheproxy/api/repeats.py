"""Remembers what byte-equal requests asked for, so that a repeated one need not be parsed.

Clients often repeat the same text, and their libraries write the same JSON. What such a request
asks for (the key of an entry, the form of the answer) is remembered by its bytes and namespace.
Entries themselves are not held here: one that was evicted from the tiers is not found.
"""

from typing import Generic, TypeVar

Way = TypeVar("Way")

_MOST_REQUESTS = 4_096
_MOST_BYTES = 2_048
"""Number of requests remembered, and the longest of them: 10 MB at most."""


class Repeats(Generic[Way]):
    """Remembers what requests that were hits asked for; the oldest is evicted first."""

    def __init__(self, *, most_bytes: int = _MOST_BYTES) -> None:
        self._known: dict[tuple[str, bytes], Way] = {}
        self._most_bytes = most_bytes

    def get(self, namespace_id: str, body: bytes) -> Way | None:
        """Return what an earlier request with this body asked for."""
        return self._known.get((namespace_id, body))

    def put(self, namespace_id: str, body: bytes, way: Way) -> None:
        """Remember what a body asks for, unless it is long."""
        if len(body) > self._most_bytes:
            return
        if len(self._known) >= _MOST_REQUESTS:
            del self._known[next(iter(self._known))]
        self._known[namespace_id, body] = way
