"""The seam between an embedding route's own JSON and what all embedding routes share."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, NamedTuple, Protocol

from msgspec import Meta

from cacheproxy.api.callers import NAMESPACE
from cacheproxy.api.control import CONTROL_HEADERS
from cacheproxy.api.presentation import EncodingFormat
from cacheproxy.api.response import REQUEST_ID, refusals
from cacheproxy.errors import BadRequest
from cacheproxy.routes.exchange import EmbeddingsResult

Text = Annotated[str, Meta(min_length=1)]

ITEM_HEADERS = (NAMESPACE, *CONTROL_HEADERS, REQUEST_ID)
"""The headers that are read of a request to any of these routes."""

ITEM_REFUSALS = refusals(400, 401, 404, 408, 413, 415, 422, 429, 500, 502, 503, 504)
"""The errors with which any of these routes answers."""


class Asked(NamedTuple):
    """A request's parsed body.

    Attributes:
        inputs: texts, or lists of token ids.
        model: the model's name; None takes the server's default.
        form: how vectors are rendered.
        dimensions: length to which vectors are cut, or None.
    """

    inputs: Sequence[str | list[int]]
    model: str | None = None
    form: EncodingFormat = "float"
    dimensions: int | None = None


class Dialect(Protocol):
    """One route's JSON, both ways."""

    def parse(self, body: bytes) -> Asked:
        """Return what is asked; raises `BadRequest`."""

    def render(self, asked: Asked, answer: EmbeddingsResult, model: str, total_s: float) -> bytes:
        """Return the answer's JSON body."""

    def frame(self, model: str, tokens: int) -> tuple[bytes, bytes] | None:
        """Return the bytes before and after the vector in the answer to one input of `tokens`.

        None if they are not the same in every answer.
        """


@dataclass(frozen=True, slots=True)
class InputLimits:
    """The most that one request may contain."""

    inputs: int
    characters: int

    def check(self, asked: Asked) -> None:
        """Raise `BadRequest` (422) unless the inputs are within the limits."""
        if len(asked.inputs) > self.inputs:
            raise BadRequest(
                f"{len(asked.inputs)} inputs are too many; one request takes up to {self.inputs}",
                status=422,
                param="input",
                code="too_many_inputs",
            )
        for i, given in enumerate(asked.inputs):
            if len(given) > self.characters:
                raise BadRequest(
                    f"input {i} is longer than {self.characters} characters",
                    status=422,
                    param="input",
                    code="input_too_long",
                )
