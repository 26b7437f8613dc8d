"""The seam between an embedding route's own JSON and what all of them share."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from cacheproxy.api.presentation import EncodingFormat
from cacheproxy.errors import BadRequest
from cacheproxy.routes.exchange import EmbeddingsResult


class Asked(NamedTuple):
    """A request's body, understood.

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
        """Return what stands around the vector in the answer to one input of so many tokens.

        None where that is not always the same.
        """


@dataclass(frozen=True, slots=True)
class InputLimits:
    """What one request may bring."""

    inputs: int
    characters: int

    def check(self, asked: Asked) -> None:
        """Raise `BadRequest` unless the inputs are within the limits, and none is empty."""
        if not asked.inputs:
            raise BadRequest("'input' must not be an empty list", param="input")
        if len(asked.inputs) > self.inputs:
            raise BadRequest(
                f"{len(asked.inputs)} inputs are too many; one request takes up to {self.inputs}",
                status=422,
                param="input",
                code="too_many_inputs",
            )
        for i, given in enumerate(asked.inputs):
            if not given:
                raise BadRequest(f"input {i} is empty", param="input", code="empty_input")
            if len(given) > self.characters:
                raise BadRequest(
                    f"input {i} is longer than {self.characters} characters",
                    status=422,
                    param="input",
                    code="input_too_long",
                )
