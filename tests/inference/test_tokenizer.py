"""What the tokenizer promises holds for Unigram vocabularies with XLM-R's specials, <s> … </s>."""

import pytest
import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors

from cacheproxy.errors import BadRequest
from cacheproxy.inference.tokenizer import Tokenizer

MAX_TOKENS = 8
SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")
PIECES = ("▁", "▁Hallo", "▁hallo", "▁Welt", "世界", "▁wel", "t", "a", "b")


@pytest.fixture(scope="module")
def xlmr():
    """A tokenizer as XLM-R's is made: Unigram pieces, ▁ for spaces, its specials around a text."""
    scores = [(token, 0.0) for token in SPECIALS]
    scores += [(piece, -float(rank)) for rank, piece in enumerate(PIECES, 1)]
    tokenizer = tokenizers.Tokenizer(models.Unigram(scores, unk_id=3, byte_fallback=False))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIALS])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    # As files on the hub come: with the padding and truncation of their own training.
    tokenizer.enable_padding(pad_id=1, pad_token="<pad>", length=6)
    tokenizer.enable_truncation(4)
    return Tokenizer(tokenizer.to_str().encode(), MAX_TOKENS)


def ids_of(*pieces: str) -> list[int]:
    return [(*SPECIALS, *PIECES).index(piece) for piece in pieces]


def test_a_text_lies_between_the_specials_unpadded(xlmr):
    assert xlmr.encode(["Hallo Welt", "Hallo世界", ""]) == [
        ids_of("<s>", "▁Hallo", "▁Welt", "</s>"),
        ids_of("<s>", "▁Hallo", "世界", "</s>"),
        ids_of("<s>", "</s>"),
    ]


def test_case_is_kept_and_what_is_unknown_has_an_id(xlmr):
    assert xlmr.encode(["hallo", "Hallo", "?"]) == [
        ids_of("<s>", "▁hallo", "</s>"),
        ids_of("<s>", "▁Hallo", "</s>"),
        ids_of("<s>", "▁", "<unk>", "</s>"),
    ]


def test_a_long_text_is_cut_to_the_models_length_and_keeps_its_end(xlmr):
    (ids,) = xlmr.encode(["Welt " * 40])

    assert ids == ids_of("<s>", *["▁Welt"] * (MAX_TOKENS - 2), "</s>")
    assert xlmr.is_full(ids)


def test_ids_are_accepted_with_the_specials_or_without(xlmr):
    (ids,) = xlmr.encode(["Hallo Welt"])

    assert xlmr.accept(ids) == xlmr.accept(ids[1:-1]) == ids
    assert xlmr.accept([7] * 40) == [0, *[7] * (MAX_TOKENS - 2), 2]


@pytest.mark.parametrize("stray", [-1, len(SPECIALS) + len(PIECES)])
def test_ids_outside_the_vocabulary_are_refused(xlmr, stray):
    with pytest.raises(BadRequest, match=str(stray)):
        xlmr.accept([4, stray])


def test_a_text_has_the_same_ids_alone_and_among_others(xlmr, installed):
    texts = ["", " ", "Hallo Welt", "héllo\u0000 wörld", "日本語 🙂", "[CLS] </s>", "tab\t" * 200]
    for tokenizer in (xlmr, Tokenizer(installed.tokenizer_json, installed.max_tokens)):
        assert [tokenizer.encode([text])[0] for text in texts] == tokenizer.encode(texts)
