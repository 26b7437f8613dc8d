"""What is asked of any embeddings route, and what is done with it before the tiers are asked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, NamedTuple

from msgspec import Meta

from cacheproxy.api.dialects.protocol import InputLimits, Prepared
from cacheproxy.api.presentation import Form, Headers
from cacheproxy.errors import BadRequest
from cacheproxy.inference.inputs import InputReader, Role
from cacheproxy.routes.exchange import ModelInfo

Text = Annotated[str, Meta(min_length=1)]


class Asked(NamedTuple):
    """A request's parsed body.

    Attributes:
        inputs: texts, or lists of token ids.
        model: the model's name; None takes the server's default.
        form: how vectors are written.
        dimensions: length to which vectors are cut, or None.
        role: what the inputs are for, or None.
        more_forms: further ways in which each vector is written, in the same answer.
    """

    inputs: Sequence[str | list[int]]
    model: str | None = None
    form: Form = "float"
    dimensions: int | None = None
    role: Role | None = None
    more_forms: Sequence[Form] = ()


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
        if dimensions % 8 and not {"binary", "ubinary"}.isdisjoint((asked.form, *asked.more_forms)):
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


class EmbeddingPreparation:
    """Checks limits and dimensions, and has the inputs read for the model."""

    def __init__(
        self, limits: InputLimits, dimensions: DimensionsRule, readers: Mapping[str, InputReader]
    ) -> None:
        """Prepare; `readers` read the inputs for each model, by its own name."""
        self._limits = limits
        self._dimensions = dimensions
        self._readers = readers

    async def prepare(self, asked: Asked, model: ModelInfo, caller: str) -> Prepared:
        """Return the inputs as the model is to read them; raises `BadRequest`."""
        self._limits.check(asked.inputs)
        warnings = self._dimensions.check(asked, model)
        reader = self._readers[model.name]
        inputs = await reader.read(asked.inputs, asked.role, asked.model or "", caller)
        return Prepared(inputs, warnings)
