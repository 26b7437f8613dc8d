"""The seam between the completions route and a provider's API: how it asks, and how it answers.

A dialect reads requests and answers only as far as the cache must. What it does not understand is
left to the upstream: the request then bypasses the tiers, and the answer is passed on and not kept.
All of it is a pure core.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from cacheproxy.routes.dialects.completion import Completion
from cacheproxy.routes.dialects.request import CompletionRequest


class Assembler(Protocol):
    """Puts the events of one streamed answer together.

    Attributes:
        is_done: whether the last event has come.
    """

    is_done: bool

    def take_all(self, events: Sequence[bytes]) -> int:
        """Take the next events, up to one that is malformed; return how many were taken."""

    def completion(self) -> Completion | None:
        """Return the answer as one completion; None unless it is complete and may be kept."""


class Dialect(Protocol):
    """One provider's API for completions.

    Attributes:
        name: the route's label in metrics, and a part of every key.
        path: of the API, below an upstream's base URL.
    """

    name: str
    path: str

    def parse(self, body: bytes, *, max_temperature: float) -> CompletionRequest:
        """Return a request; hotter ones than `max_temperature` bypass the tiers.

        Raises:
            BadRequest: it is no JSON object, or names no model.
        """

    def read(self, body: bytes) -> Completion | None:
        """Return what may be kept of a whole answer with status 200, or None.

        Raises:
            UpstreamFailed: it is no answer, whatever its status says.
        """

    def assembler(self) -> Assembler:
        """Return an assembler for one streamed answer."""

    def replay(self, body: bytes, *, with_usage: bool) -> bytes:
        """Return the events that an upstream would send for a kept answer."""

    def error_event(self, error: dict[str, Any]) -> bytes:
        """Return the event that ends a stream with an OpenAI-shaped error object."""
