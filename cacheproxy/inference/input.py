"""What a model can be asked for: a text, a text as token ids, or a query with a document."""

from typing import Literal, NamedTuple

Keeps = Literal["start", "end", "all"]
"""What is left of texts that are too long: their start, their end; or they are refused."""


class Pair(NamedTuple):
    """A query and a document, and how they are truncated.

    Attributes:
        query, document: the texts.
        most_tokens: of the pair, special tokens counted, if fewer than the model's; 0: the model's.
        document_tokens: most of the document's tokens that are read; 0: all.
        keeps: what is left of a pair that has too many tokens.
    """

    query: str
    document: str
    most_tokens: int = 0
    document_tokens: int = 0
    keeps: Keeps = "start"


Input = str | list[int] | Pair


def characters_of(given: Input) -> int:
    """Return how many characters are to be tokenised."""
    if isinstance(given, str):
        return len(given)
    return len(given.query) + len(given.document) if isinstance(given, Pair) else 0
