"""The head of an upstream's answer, and the headers of a client that it may depend on."""

from collections.abc import Sequence
from dataclasses import dataclass

Headers = Sequence[tuple[bytes, bytes]]

CREDENTIALS = (b"authorization", b"x-api-key")
"""Headers in which callers send their own keys."""


@dataclass(frozen=True, slots=True)
class Head:
    """The beginning of an answer.

    Attributes:
        status: the HTTP status.
        content_type: its header as it came.
        headers: those that may be passed on.
        upstream: whose answer it is.
    """

    status: int
    content_type: bytes
    headers: Headers
    upstream: str

    def is_of(self, media_type: bytes) -> bool:
        """Return whether the body is said to be of a type."""
        return self.content_type.partition(b";")[0].strip().lower() == media_type
