"""Turns a query and a document into the ids that a reranker reads: both texts in one sequence.

A pair's score is a function of these ids alone, so they are what the exact tier hashes. A model
with two token types is told by the ids which text a token belongs to: those of the second text,
and what follows them, are raised by an offset, the size of its vocabulary. So a "[SEP]" in a text
cannot make one pair look like another.
"""

from collections.abc import Sequence

from cacheproxy.errors import BadRequest
from cacheproxy.inference.input import Input, Keeps, Pair
from cacheproxy.inference.tokenizer import library_tokenizer


class PairTokenizer:
    """A reranker's tokenizer with its special tokens and its maximum length in tokens."""

    def __init__(self, tokenizer_json: bytes, max_tokens: int, segment_offset: int) -> None:
        """Prepare; `segment_offset` is added to ids of token type 1; 0: there is only one type."""
        self._tokenizer = library_tokenizer(tokenizer_json)
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._max_tokens = max_tokens
        example = self._tokenizer.encode("a", "a")
        whose: list[int | None] = example.sequence_ids
        first, second = whose.index(0), whose.index(1)
        after_first, after_second = first + whose.count(0), second + whose.count(1)
        raised = [segment_offset * kind for kind in example.type_ids]
        ids = [i + offset for i, offset in zip(example.ids, raised, strict=True)]
        self._before, self._between = ids[:first], ids[after_first:second]
        self._after = ids[after_second:]
        self._offset = raised[second]
        self._specials = len(self._before) + len(self._between) + len(self._after)

    def encode(self, pairs: Sequence[Pair]) -> list[list[int]]:
        """Return each pair's ids, special tokens included, truncated as the pair says.

        It releases the interpreter lock while it tokenises. A query that several pairs share is
        tokenised once.

        Raises:
            BadRequest: a pair that is not to be truncated is too long.
        """
        texts = list(dict.fromkeys(text for pair in pairs for text in (pair.query, pair.document)))
        encodings = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        ids_of = {text: encoding.ids for text, encoding in zip(texts, encodings, strict=True)}
        return [self._join(pair, ids_of[pair.query], ids_of[pair.document]) for pair in pairs]

    def read(self, inputs: Sequence[Input]) -> Sequence[Sequence[int]]:
        """Return the ids of pairs, as `encode` does."""
        return self.encode([given for given in inputs if isinstance(given, Pair)])

    def is_full(self, ids: Sequence[int]) -> bool:
        """Return whether the ids reach the model's maximum length, so that texts may be cut."""
        return len(ids) >= self._max_tokens

    def _join(self, pair: Pair, query: list[int], document: list[int]) -> list[int]:
        document = _cut(document, pair.document_tokens or len(document), pair.keeps)
        most = min(pair.most_tokens or self._max_tokens, self._max_tokens) - self._specials
        if len(query) + len(document) > most:
            if pair.keeps == "all":
                found = len(query) + len(document) + self._specials
                raise BadRequest(
                    f"a query and a document have {found} tokens together, more than the model's "
                    f"{most + self._specials}, and may not be truncated",
                    status=422,
                    code="input_too_long",
                )
            shares = _shares(len(query), len(document), max(most, 0))
            query = _cut(query, shares[0], pair.keeps)
            document = _cut(document, shares[1], pair.keeps)
        if self._offset:
            document = [i + self._offset for i in document]
        return [*self._before, *query, *self._between, *document, *self._after]


def _cut(ids: list[int], most: int, keeps: Keeps) -> list[int]:
    if len(ids) <= most:
        return ids
    return ids[len(ids) - most :] if keeps == "end" else ids[:most]


def _shares(first: int, second: int, most: int) -> tuple[int, int]:
    """Return how much is left of two lengths whose sum exceeds `most`: the longer one is cut first.

    As `tokenizers` does it (its strategy "longest first"), so that ids are those of the reference.
    """
    shorter = min(first, second)
    if 2 * shorter <= most:
        longer = most - shorter
    else:
        shorter, longer = most // 2, most - most // 2
    return (longer, shorter) if first > second else (shorter, longer)
