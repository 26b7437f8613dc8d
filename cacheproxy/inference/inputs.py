"""What a model reads of a request's inputs: token ids told apart, and the model's prefixes added.

Some models were trained with a text in front of each input that says what the input is for: a query
or a document. The server adds it, so that clients need not know it. As it becomes part of the text
it is part of the key, too: a query and a document of the same words are two entries.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

from cacheproxy.errors import BadRequest
from cacheproxy.inference.token_ids import TokenIds

Role = Literal["query", "document", "other"]
"""What inputs are for; "other" is neither of the first two, such as clustering."""


class InputReader:
    """Reads inputs for one model."""

    def __init__(
        self, prefixes: Mapping[Role, str] | None = None, token_ids: TokenIds | None = None
    ) -> None:
        """Prepare.

        `prefixes` are the model's by role, empty if it was trained without any; None for a model of
        an upstream, where they are not known. `token_ids` is None if the upstream reads them.
        """
        self._prefixes = prefixes
        self._token_ids = token_ids

    async def read(
        self,
        inputs: Sequence[str | list[int]],
        role: Role | None,
        model_name: str,
        caller: str = "",
    ) -> Sequence[str | list[int]]:
        """Return the inputs as the model is to read them.

        `inputs` are all texts or all lists of token ids. `model_name` is the name under which the
        client asked for the model, `caller` who asks.

        Raises:
            BadRequest: the model has no prefix for the role, or the ids are of another vocabulary.
        """
        prefix = "" if role is None else self._prefix_of(role)
        if self._token_ids is not None and (lists := [x for x in inputs if isinstance(x, list)]):
            inputs = await self._token_ids.read(lists, model_name, caller, as_texts=bool(prefix))
        return [f"{prefix}{text}" for text in inputs] if prefix else inputs

    def _prefix_of(self, role: Role) -> str:
        if self._prefixes is None:
            raise BadRequest(
                "an input type is not passed on to the upstream that has this model",
                code="unsupported_input_type",
            )
        if role in self._prefixes or not self._prefixes:
            return self._prefixes.get(role, "")
        raise BadRequest(
            "this model has prefixes for queries and documents, and for no other input type",
            code="unsupported_input_type",
        )
