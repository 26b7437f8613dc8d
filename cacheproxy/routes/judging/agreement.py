"""Whether two answers say the same: what teaches the semantic tier for chat.

Equal but for case, spaces and punctuation is the same. Else the two must be alike in every part, by
the local model's embeddings, with the same numbers, negations and code, and with what they have in
common in the same order: "from A to B" is not "from B to A", which no encoder of this size knows.
What is not seen to be the same counts as different, so that doubt costs hits and not the promise.

That some different answers are taken for the same is reckoned with: `SENSITIVITY`.
"""

import re
from collections.abc import Awaitable, Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from cacheproxy.routes.chat.signature import signature_of

SENSITIVITY = 0.93
"""At least this share of different answers is told apart. Measured on pairs of texts that are alike
and say different things: negations and swapped facts 94.7 % of 1,500, PAWS 99.1 % of 1,100, Quora
98.9 % of 2,500; 93 % is the lower 99 % limit of the worst."""

_ALIKE = 0.95
"""Cosine; at 0.90 the share on negations is 86.5 %."""

_PIECE_WORDS = 120
_MOST_PIECES = 16
"""An encoder reads the first 256 tokens of a text; longer answers are compared in pieces, and ones
that have more than so many are not the same unless they are equal."""

_MOST_CHARACTERS = 16_384
"""Of an answer: well above what so many pieces hold. Longer ones are not worth the event loop's
time, and are not the same unless they are equal."""

_WORD = re.compile(r"\w+")

_FUNCTION_WORDS = frozenset(
    """
    a an the is are was were be been to of in on at for and or do does did i you it this that my
    your we with by as from can what how why when which who
    """.split()  # noqa: SIM905
)

Embed = Callable[[Sequence[str]], Awaitable[NDArray[np.float32]]]
"""Gives float32 [n, d] unit rows of so many texts; raises `ApiError`."""


class Comparer:
    """Compares answers by an encoder."""

    def __init__(self, embed: Embed) -> None:
        self._embed = embed

    async def agree(self, one: str, other: str) -> bool:
        """Return whether two answers are seen to say the same.

        Raises:
            ApiError: there was no telling, as the encoder could not be asked.
        """
        words, other_words = _words(one), _words(other)
        if words == other_words:
            return True
        if max(len(one), len(other)) > _MOST_CHARACTERS:
            return False
        pieces, other_pieces = _pieces(one), _pieces(other)
        if not pieces or not other_pieces or len(pieces) + len(other_pieces) > 2 * _MOST_PIECES:
            return False
        if signature_of(one) != signature_of(other) or _is_reordered(words, other_words):
            return False
        rows = await self._embed([*pieces, *other_pieces])
        cosines = rows[: len(pieces)] @ rows[len(pieces) :].T
        return bool(min(cosines.max(axis=0).min(), cosines.max(axis=1).min()) >= _ALIKE)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _is_reordered(words: Sequence[str], other: Sequence[str]) -> bool:
    """Return whether words that both have, function words aside, come in another order."""
    places: dict[str, int] = {}
    for place, word in enumerate(other):
        if word not in _FUNCTION_WORDS:
            places.setdefault(word, place)
    shared = [places[word] for word in dict.fromkeys(words) if word in places]
    return shared != sorted(shared)


def _pieces(text: str) -> list[str]:
    words = text.split()
    return [
        " ".join(words[start : start + _PIECE_WORDS])
        for start in range(0, len(words), _PIECE_WORDS)
    ]
