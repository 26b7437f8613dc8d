"""Remembers what byte-equal requests asked for, so that a repeated one need not be parsed.

Clients often repeat the same text, and their libraries write the same JSON. What such a request
asks for (the key of an entry, the form of the answer) is remembered by its bytes and namespace.
Entries themselves are not held here: one that was evicted from the tiers is not found. Tenants
divide the memory (`fairness.shelves`).
"""

from typing import Generic, TypeVar

from cacheproxy.fairness.shelves import Shelves
from cacheproxy.keys import owner_of

Way = TypeVar("Way")

_MOST_REQUESTS = 4_096
_MOST_BYTES = 2_048
"""Number of requests remembered, and the longest of them: 10 MB at most."""


class Repeats(Generic[Way]):
    """Remembers what requests that were hits asked for; a tenant's oldest is evicted first."""

    def __init__(self, *, most_bytes: int = _MOST_BYTES) -> None:
        self._known: dict[bytes, dict[str, Way]] = {}
        self._shelves = Shelves[tuple[str, bytes], None](_MOST_REQUESTS)
        self._most_bytes = most_bytes

    def knows(self, body: bytes) -> bool:
        """Return whether any namespace has sent this body: most that are new end here."""
        return body in self._known

    def get(self, namespace_id: str, body: bytes) -> Way | None:
        """Return what an earlier request with this body asked for."""
        ways = self._known.get(body)
        return None if ways is None else ways.get(namespace_id)

    def put(self, namespace_id: str, body: bytes, way: Way) -> None:
        """Remember what a body asks for, unless it is long."""
        if len(body) > self._most_bytes:
            return
        ways = self._known.setdefault(body, {})
        is_new = namespace_id not in ways
        ways[namespace_id] = way
        if not is_new:
            return
        shelf = self._shelves.of(owner_of(namespace_id))
        shelf.things[namespace_id, body] = None
        self._shelves.grow(shelf, 1)
        if over := self._shelves.over(shelf):
            (oldest, its_body), _ = over.things.popitem(last=False)
            self._shelves.grow(over, -1)
            ways = self._known[its_body]
            del ways[oldest]
            if not ways:
                del self._known[its_body]
