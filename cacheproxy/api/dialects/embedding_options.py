"""What embedding requests may say beside their inputs, in the words of several providers.

What inputs are for: `input_type` (Voyage, Cohere, NVIDIA), `task` (Jina), `prompt_name`
(text-embeddings-inference). The type of the numbers: `output_dtype` (Voyage), `embedding_type`
(Jina), `embedding_types` (Cohere). One spelling of each may be given.
"""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from cacheproxy.api.presentation import Form, Quantized
from cacheproxy.errors import BadRequest
from cacheproxy.inference.inputs import Role

InputType = Literal[
    "query",
    "document",
    "passage",
    "search_query",
    "search_document",
    "classification",
    "clustering",
]
Task = Literal[
    "retrieval.query", "retrieval.passage", "text-matching", "classification", "separation"
]
PromptName = Literal["query", "document", "passage"]
Dtype = Literal["float", Quantized]

_ROLES: dict[str, Role] = {
    "query": "query",
    "search_query": "query",
    "retrieval.query": "query",
    "document": "document",
    "passage": "document",
    "search_document": "document",
    "retrieval.passage": "document",
}

_ROLE_FIELDS = ("input_type", "task", "prompt_name")
_DTYPE_FIELDS = ("output_dtype", "embedding_type", "embedding_types")


def role_of(said: str | None) -> Role | None:
    """Return what inputs are for, from what any of the providers' fields says."""
    return None if said is None else _ROLES.get(said, "other")


class EmbeddingOptions(Struct):
    """The options of a request; every dialect of embeddings takes them."""

    input_type: Annotated[
        InputType | None,
        Meta(
            description="What the inputs are for. The server puts the model's own prefix for it in "
            "front of each input; a model without prefixes needs none. `passage` is `document`."
        ),
    ] = None
    task: Annotated[Task | None, Meta(description="What the inputs are for, in Jina's words.")] = (
        None
    )
    prompt_name: Annotated[
        PromptName | None,
        Meta(description="What the inputs are for, in text-embeddings-inference's words."),
    ] = None
    output_dtype: Annotated[
        Dtype | None,
        Meta(
            description="The type of the numbers. `int8` is `round(127 * x / max(abs(x)))` over "
            "the vector, `uint8` the same plus 128. `ubinary` has one bit for each dimension, 1 "
            "for a positive number, eight to a byte and the first dimension highest; `binary` is "
            "the same minus 128. All but `float` are written as arrays of integers."
        ),
    ] = None
    embedding_type: Annotated[
        Dtype | Literal["base64"] | None,
        Meta(description="The type of the numbers, in Jina's words; base64 is of float32."),
    ] = None
    embedding_types: Annotated[
        Annotated[list[Dtype], Meta(min_length=1, max_length=1)] | None,
        Meta(description="The type of the numbers, in Cohere's words; exactly one."),
    ] = None

    @property
    def role(self) -> Role | None:
        """What the inputs are for; raises `BadRequest` if that is said twice."""
        if self.input_type is None and self.task is None and self.prompt_name is None:
            return None  # as nearly always
        return role_of(self._said(_ROLE_FIELDS))

    def form(self, encoding: Literal["float", "base64"] = "float") -> Form:
        """Return how vectors are written; raises `BadRequest` if their type is said twice.

        Integers are always arrays: OpenAI's clients ask for base64 unless told otherwise, and take
        whatever comes for float32.
        """
        if (
            self.output_dtype is None
            and self.embedding_type is None
            and self.embedding_types is None
        ):
            return encoding  # as nearly always
        said = self._said(_DTYPE_FIELDS)
        dtype = said[0] if isinstance(said, list) else said
        if dtype is None or dtype == "float":
            return encoding
        form: Form = dtype
        return form

    def _said(self, fields: tuple[str, ...]) -> Any:
        given = {name: value for name in fields if (value := getattr(self, name)) is not None}
        if len(given) > 1:
            names = " and ".join(f"'{name}'" for name in given)
            raise BadRequest(f"{names} say the same: give one of them", param=next(iter(given)))
        return next(iter(given.values()), None)


def _not_both(one: str, other: str) -> dict[str, Any]:
    given = {name: {"not": {"type": "null"}} for name in (one, other)}
    return {"not": {"required": [one, other], "properties": given}}


ONE_SPELLING: dict[str, Any] = {
    "allOf": [
        _not_both(one, other)
        for fields in (_ROLE_FIELDS, _DTYPE_FIELDS)
        for i, one in enumerate(fields)
        for other in fields[i + 1 :]
    ]
}
"""JSON Schema of what `EmbeddingOptions` checks beyond its types."""
