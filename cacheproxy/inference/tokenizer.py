"""Turns a text, or token ids from a client, into the exact ids that the model reads.

The ids are what the exact tier hashes: two inputs with equal ids get byte-identical vectors.
"""

import json
import os
from collections.abc import Sequence

# The library's own threads would compete with inference; must be set before its first use.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from tokenizers import Encoding, decoders
from tokenizers import Tokenizer as _Tokenizer

from cacheproxy.errors import BadRequest
from cacheproxy.inference.input import Input

_SHORT_CHARACTERS = 500
"""Up to this length one text is tokenised without releasing the interpreter lock: 50 us for ten
words. Beside inference on all cores it took 270 us until the lock was back (measured)."""


class Tokenizer:
    """A model's tokenizer with its special tokens and its maximum length in tokens."""

    def __init__(self, tokenizer_json: bytes, max_tokens: int) -> None:
        self._tokenizer = library_tokenizer(tokenizer_json)
        self._padding = _padding_id(self._tokenizer)
        self._decoder = _exact_decoder(self._tokenizer, tokenizer_json)
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_tokens)
        self._max_tokens = max_tokens
        self._vocabulary_size = self._tokenizer.get_vocab_size()
        around_nothing = self._tokenizer.encode("").ids
        # One leading and one trailing special in the BERT family ([CLS] … [SEP], <s> … </s>).
        self._prefix, self._suffix = around_nothing[:1], around_nothing[1:]

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return each text's ids, special tokens included, truncated to the model's maximum length.

        It releases the interpreter lock, so it may run beside the event loop, but for a short text.
        """
        encodings: list[Encoding]
        if len(texts) == 1 and len(texts[0]) <= _SHORT_CHARACTERS:
            encodings = [self._tokenizer.encode(texts[0])]
        else:
            encodings = self._tokenizer.encode_batch_fast(texts)
        return [encoding.ids for encoding in encodings]

    def read(self, inputs: Sequence[Input]) -> Sequence[Sequence[int]]:
        """Return the ids of texts, and lists of ids as `accept` returns them; raises as it does."""
        encoded = iter(self.encode([given for given in inputs if isinstance(given, str)]))
        return [
            self.accept(given) if isinstance(given, list) else next(encoded) for given in inputs
        ]

    def vocabulary(self) -> dict[str, int]:
        """Return the tokens and their ids; models number them by frequency."""
        return dict(self._tokenizer.get_vocab())

    def decode(self, ids: Sequence[Sequence[int]]) -> list[str]:
        """Return each text approximately, as far as the ids preserve it, without special tokens."""
        texts: list[str] = self._tokenizer.decode_batch(ids)
        return texts

    def text_of(self, ids: Sequence[int]) -> str | None:
        """Return a text that has exactly these ids, or None if there is none.

        The special tokens around a text may be there or not. Of ids beyond the model's longest
        length the text is returned, but they are not compared.
        """
        if not ids or min(ids) < 0 or max(ids) >= self._vocabulary_size:
            return None
        inner = self._inner(ids)
        tokens = [self._tokenizer.id_to_token(i) or "" for i in inner]
        text: str = self._decoder.decode(tokens)
        again = self._tokenizer.encode(text, add_special_tokens=False).ids
        return text if again == inner[: self._max_tokens] else None

    def has_specials(self, ids: Sequence[int]) -> bool:
        """Return whether the ids have the model's special tokens around them."""
        return len(self._inner(ids)) < len(ids)

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
        return [*self._prefix, *self._inner(ids)[: self._max_tokens - 2], *self._suffix]

    def _inner(self, ids: Sequence[int]) -> list[int]:
        """Return the ids without the specials around them, and without padding after those."""
        end = len(ids)
        while end > 1 and ids[end - 1] == self._padding:
            end -= 1
        if [*ids[:1]] == self._prefix and [*ids[end - 1 : end]] == self._suffix:
            return [*ids[1 : end - 1]]
        return [*ids]

    def is_full(self, ids: Sequence[int]) -> bool:
        """Return whether the ids reach the model's maximum length, so the text may be truncated."""
        return len(ids) >= self._max_tokens


def library_tokenizer(tokenizer_json: bytes) -> _Tokenizer:
    """Return the tokenizer of the library, whose threads are off, as it is described."""
    return _Tokenizer.from_str(tokenizer_json.decode())


def _padding_id(tokenizer: _Tokenizer) -> int | None:
    if tokenizer.padding is not None:
        return int(tokenizer.padding["pad_id"])
    ids = (tokenizer.token_to_id(token) for token in ("[PAD]", "<pad>"))
    return next((i for i in ids if i is not None), None)


def _exact_decoder(tokenizer: _Tokenizer, tokenizer_json: bytes) -> decoders.Decoder:
    """Return a decoder whose text gives the same ids again.

    WordPiece's usual one tidies the text up (" do not" becomes " don't"), which has other ids.
    """
    described = json.loads(tokenizer_json).get("decoder") or {}
    if described.get("type") == "WordPiece":
        return decoders.WordPiece(prefix=described["prefix"], cleanup=False)
    usual: decoders.Decoder = tokenizer.decoder
    return usual
