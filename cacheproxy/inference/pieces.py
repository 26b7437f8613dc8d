"""Shows how a model's tokenizer cuts a text up: nothing is truncated, each token has its place."""

from collections.abc import Sequence
from typing import NamedTuple

from tokenizers import Tokenizer


class Piece(NamedTuple):
    """A token of a text.

    Attributes:
        id: its number in the vocabulary.
        text: the part of the text that it stands for; a special token's own name.
        special: whether it is a special token, which stands for no part.
        start, stop: where the part is, in characters; None of a special token.
    """

    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


class PieceTokenizer:
    """A tokenizer beside the model's own, which truncates; it is made at the first call."""

    def __init__(self, tokenizer_json: bytes) -> None:
        self._json = tokenizer_json
        self._tokenizer: Tokenizer | None = None

    def cut(self, texts: Sequence[str], *, with_specials: bool) -> list[list[Piece]]:
        """Return the tokens of each text, with or without the model's special tokens around it."""
        if self._tokenizer is None:
            self._tokenizer = Tokenizer.from_str(self._json.decode())
            self._tokenizer.no_padding()
            self._tokenizer.no_truncation()
        encodings = self._tokenizer.encode_batch(list(texts), add_special_tokens=with_specials)
        return [
            [
                Piece(number, token, True, None, None)
                if special
                else Piece(number, text[start:stop], False, start, stop)
                for number, token, special, (start, stop) in zip(
                    encoding.ids,
                    encoding.tokens,
                    encoding.special_tokens_mask,
                    encoding.offsets,
                    strict=True,
                )
            ]
            for text, encoding in zip(texts, encodings, strict=True)
        ]
