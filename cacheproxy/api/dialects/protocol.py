"""The seam between a route's own JSON and what all routes of items share."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar

from cacheproxy.api.callers import NAMESPACE
from cacheproxy.api.control import CONTROL_HEADERS
from cacheproxy.api.presentation import Body, Headers
from cacheproxy.api.response import REQUEST_ID, refusals
from cacheproxy.errors import BadRequest
from cacheproxy.inference.input import Input
from cacheproxy.records import Record
from cacheproxy.routes.exchange import ItemsResult, ModelInfo, Served

ITEM_HEADERS = (NAMESPACE, *CONTROL_HEADERS, REQUEST_ID)
"""The headers that are read of a request to any of these routes."""

ITEM_REFUSALS = refusals(400, 401, 404, 408, 413, 415, 422, 429, 500, 502, 503, 504)
"""The errors with which any of these routes answers."""


class NamesModel(Protocol):
    """A request's parsed body; None takes the server's default model."""

    @property
    def model(self) -> str | None: ...


A = TypeVar("A", bound=NamesModel)
A_contra = TypeVar("A_contra", bound=NamesModel, contravariant=True)
R = TypeVar("R", bound=Record)


class Frame(Protocol[R]):
    """What surrounds the result in the answer to one input."""

    def fill(self, served: Served[R]) -> bytes:
        """Return the answer."""


class Dialect(Protocol[A, R]):
    """One route's JSON, both ways."""

    def parse(self, body: bytes) -> A:
        """Return what is asked; raises `BadRequest`."""

    async def render(
        self, asked: A, answer: ItemsResult[R], model: ModelInfo, total_s: float
    ) -> Body:
        """Return the answer's JSON body; other requests have their turn meanwhile."""

    def frame(self, asked: A, model: ModelInfo, record: R) -> Frame[R] | None:
        """Return the frame of the answer to one input, which has this record.

        None if it is not the same in every answer.
        """


class Prepared(NamedTuple):
    """The inputs as the model is to read them, and headers that warn of what is doubtful."""

    inputs: Sequence[Input]
    warnings: Headers


class Preparation(Protocol[A_contra]):
    """What is done with a request of one kind before the tiers are asked."""

    async def prepare(self, asked: A_contra, model: ModelInfo, caller: str) -> Prepared:
        """Return the inputs of a request by this caller; raises `BadRequest`."""


@dataclass(frozen=True, slots=True)
class InputLimits:
    """The most that one request may contain."""

    inputs: int
    characters: int

    def check(self, inputs: Sequence[str | list[int]], param: str = "input") -> None:
        """Raise `BadRequest` (422) unless the inputs, of that parameter, are within the limits."""
        if len(inputs) > self.inputs:
            raise BadRequest(
                f"{len(inputs)} inputs are too many; one request takes up to {self.inputs}",
                status=422,
                param=param,
                code="too_many_inputs",
            )
        for i, given in enumerate(inputs):
            if len(given) > self.characters:
                raise BadRequest(
                    f"{param} {i} is longer than {self.characters} characters",
                    status=422,
                    param=param,
                    code="input_too_long",
                )
