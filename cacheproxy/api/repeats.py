"""Requests that come again byte for byte: the shortest way to an entry.

Clients ask for the same text in the same words, and their libraries write the same JSON. Such a
request need not be read again: what it asks for is remembered under its bytes and its namespace.
Only the way is kept here, never the entry: what has left the tiers is not found.
"""

from typing import Generic, NamedTuple, TypeVar

from cacheproxy.api.presentation import EncodingFormat

Way = TypeVar("Way")

_MOST_REQUESTS = 4_096
_MOST_BYTES = 2_048
"""Requests remembered, and the size of one: at the most some 10 MB, for texts of that length."""


class Repeat(NamedTuple):
    """What a request's bytes ask for.

    Attributes:
        model: the model's name as it is answered.
        key: of the entry [32 bytes].
        form: how the vector is rendered.
        head: the answer's bytes before the vector.
        tail: those after it.
    """

    model: str
    key: bytes
    form: EncodingFormat
    head: bytes
    tail: bytes


class Repeats(Generic[Way]):
    """What is known of requests that were hits; the oldest goes first."""

    def __init__(self, *, most_bytes: int = _MOST_BYTES) -> None:
        self._known: dict[tuple[str, bytes], Way] = {}
        self._most_bytes = most_bytes

    def get(self, namespace_id: str, body: bytes) -> Way | None:
        """Return what this body asked for when it came before."""
        return self._known.get((namespace_id, body))

    def put(self, namespace_id: str, body: bytes, way: Way) -> None:
        """Remember what a body asks for, unless it is long."""
        if len(body) > self._most_bytes:
            return
        if len(self._known) >= _MOST_REQUESTS:
            del self._known[next(iter(self._known))]
        self._known[namespace_id, body] = way
