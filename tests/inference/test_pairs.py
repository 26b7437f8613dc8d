"""The ids of a query and a document are those of the reference tokenizer, whatever the texts."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from cacheproxy.errors import BadRequest
from cacheproxy.inference.input import Pair
from cacheproxy.inference.pairs import PairTokenizer

MOST, OFFSET = 24, 30_522
WORDS = ("the", "cat", "unbelievably", "[SEP]", "[CLS]", "Ünïcode", "日本", "?!", "x" * 120)
texts = st.lists(st.sampled_from(WORDS), max_size=20).map(" ".join) | st.text(max_size=30)


@pytest.fixture(scope="module")
def tokenizer(installed) -> PairTokenizer:
    return PairTokenizer(installed.tokenizer_json, MOST, OFFSET)


@pytest.fixture(scope="module")
def reference(installed):
    """Return a function that tokenises a pair as the library does, with its own truncation."""
    tokenizer = Tokenizer.from_str(installed.tokenizer_json.decode())
    tokenizer.no_padding()

    def encode(query: str, document: str, direction: str) -> list[int]:
        tokenizer.enable_truncation(MOST, direction=direction)
        found = tokenizer.encode(query, document)
        return [i + OFFSET * kind for i, kind in zip(found.ids, found.type_ids, strict=True)]

    return encode


@settings(deadline=None)
@given(query=texts, document=texts, keeps=st.sampled_from(["start", "end"]))
def test_pairs_are_joined_and_truncated_as_by_the_reference(
    tokenizer, reference, query, document, keeps
):
    (ids,) = tokenizer.encode([Pair(query, document, keeps=keeps)])

    assert ids == reference(query, document, "right" if keeps == "start" else "left")


@settings(deadline=None)
@given(pairs=st.lists(st.tuples(texts, texts), max_size=5))
def test_a_pair_has_the_same_ids_alone_and_among_others(tokenizer, pairs):
    together = tokenizer.encode([Pair(*pair) for pair in pairs])

    assert together == [tokenizer.encode([Pair(*pair)])[0] for pair in pairs]


def test_limits_of_a_request_cut_the_document_first_and_then_the_longer_text(tokenizer):
    words = [f"{letter} " * 10 for letter in "ab"]
    whole, *cut = tokenizer.encode(
        [Pair(*words), Pair(*words, document_tokens=3), Pair(*words, most_tokens=9)]
    )

    assert len(whole) == 23
    assert cut[0] == [*whole[:15], whole[-1]]
    assert len(cut[1]) == 9
    assert cut[1][1:4] == whole[1:4]


def test_a_pair_that_may_not_be_cut_is_refused_if_it_is_too_long(tokenizer):
    fits = Pair("a " * 10, "b " * 11, keeps="all")

    assert len(tokenizer.encode([fits])[0]) == MOST
    with pytest.raises(BadRequest, match="25 tokens"):
        tokenizer.encode([fits._replace(document="b " * 12)])
