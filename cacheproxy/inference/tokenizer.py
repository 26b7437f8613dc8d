"""Turns a text, or token ids from a client, into the exact ids that the model reads.

The ids are what the exact tier hashes: two inputs with equal ids get byte-identical vectors.
"""

import os
from collections.abc import Sequence

# The library's own threads would compete with inference; must be set before its first use.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from tokenizers import Encoding
from tokenizers import Tokenizer as _Tokenizer

from cacheproxy.errors import BadRequest


class Tokenizer:
    """A model's tokenizer with its special tokens and its maximum length in tokens."""

    def __init__(self, tokenizer_json: bytes, max_tokens: int) -> None:
        self._tokenizer = _Tokenizer.from_str(tokenizer_json.decode())
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_tokens)
        self._max_tokens = max_tokens
        self._vocabulary_size = self._tokenizer.get_vocab_size()
        around_nothing = self._tokenizer.encode("").ids
        # One leading and one trailing special in the BERT family ([CLS] … [SEP], <s> … </s>).
        self._prefix, self._suffix = around_nothing[:1], around_nothing[1:]

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return each text's ids, special tokens included, truncated to the model's maximum length.

        It releases the interpreter lock, so it may run beside the event loop.
        """
        encodings: list[Encoding] = self._tokenizer.encode_batch_fast(texts)
        return [encoding.ids for encoding in encodings]

    def vocabulary(self) -> dict[str, int]:
        """Return the tokens and their ids; models number them by frequency."""
        return dict(self._tokenizer.get_vocab())

    def decode(self, ids: Sequence[Sequence[int]]) -> list[str]:
        """Return each text approximately, as far as the ids preserve it, without special tokens."""
        texts: list[str] = self._tokenizer.decode_batch(ids)
        return texts

    def accept(self, ids: Sequence[int]) -> list[int]:
        """Return a client's ids as the model reads them, with missing special tokens added.

        Raises:
            BadRequest: there are no ids, or one is outside the vocabulary.
        """
        if not ids:
            raise BadRequest("an input of token ids must not be empty", param="input")
        if min(ids) < 0 or max(ids) >= self._vocabulary_size:
            stray = next(i for i in ids if not 0 <= i < self._vocabulary_size)
            raise BadRequest(
                f"token id {stray} is outside the model's vocabulary "
                f"of {self._vocabulary_size} tokens",
                param="input",
                code="invalid_token_id",
            )
        inner = list(ids)
        if inner[:1] == self._prefix and inner[-1:] == self._suffix:
            inner = inner[1:-1]
        return [*self._prefix, *inner[: self._max_tokens - 2], *self._suffix]

    def is_full(self, ids: Sequence[int]) -> bool:
        """Return whether the ids reach the model's maximum length, so the text may be truncated."""
        return len(ids) >= self._max_tokens
