"""The seam between an embedding route's own JSON and what all embedding routes share."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, NamedTuple, Protocol

from msgspec import Meta

from cacheproxy.api.callers import NAMESPACE
from cacheproxy.api.control import CONTROL_HEADERS
from cacheproxy.api.presentation import Form, Headers
from cacheproxy.api.response import REQUEST_ID, refusals
from cacheproxy.errors import BadRequest
from cacheproxy.inference.inputs import Role
from cacheproxy.routes.exchange import EmbeddingsResult, ModelInfo

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
        form: how vectors are written.
        dimensions: length to which vectors are cut, or None.
        role: what the inputs are for, or None.
    """

    inputs: Sequence[str | list[int]]
    model: str | None = None
    form: Form = "float"
    dimensions: int | None = None
    role: Role | None = None


class Dialect(Protocol):
    """One route's JSON, both ways."""

    def parse(self, body: bytes) -> Asked:
        """Return what is asked; raises `BadRequest`."""

    def render(
        self,
        asked: Asked,
        answer: EmbeddingsResult,
        vectors: Sequence[bytes],
        model: str,
        total_s: float,
    ) -> bytes:
        """Return the answer's JSON body; `vectors` are rendered already, in the order of inputs."""

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


@dataclass(frozen=True, slots=True)
class DimensionsRule:
    """To which lengths vectors may be cut.

    A model that was trained for it (Matryoshka representation learning, arXiv 2205.13147) puts what
    matters most first. Of any other model, a cut vector has lost more than its length says.
    """

    refuses_untrained: bool

    def check(self, asked: Asked, model: ModelInfo) -> Headers:
        """Return a warning if the model was not trained for vectors of the length asked for.

        Raises:
            BadRequest: the model has no vectors of that length, or this one is refused.
        """
        dimensions = model.dimensions if asked.dimensions is None else asked.dimensions
        if not 1 <= dimensions <= model.dimensions:
            raise BadRequest(
                f"'dimensions' must be from 1 to {model.dimensions} for this model",
                param="dimensions",
            )
        if asked.form in ("binary", "ubinary") and dimensions % 8:
            raise BadRequest(
                "bits are packed in bytes: 'dimensions' must be a multiple of 8",
                param="dimensions",
            )
        # Of an upstream's model it is not known what it was trained for.
        trained = model.matryoshka
        if dimensions == model.dimensions or trained is None or dimensions in trained:
            return []
        warning = f"{model.name} was not trained for vectors cut to {dimensions} dimensions"
        if self.refuses_untrained:
            allowed = ", ".join(map(str, (*sorted(trained), model.dimensions)))
            raise BadRequest(
                f"{warning}; allowed: {allowed}", param="dimensions", code="untrained_dimensions"
            )
        return [(b"x-cacheproxy-warning", warning.encode("ascii", "replace"))]
