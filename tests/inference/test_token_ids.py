"""Token ids of any tokenizer are read as the text that they stand for, or refused.

"Right" means that the model reads exactly the ids that it would read of the text itself, so that
the vectors are equal. `test_token_id_clients` compares the vectors of the real server.
"""

import random

import pytest
import tiktoken
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as HubTokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers

from cacheproxy.errors import BadRequest
from cacheproxy.inference.openai_encodings import (
    ENCODING_NAMES,
    encoding_of_model,
    load_encoding,
    texts_of,
)
from cacheproxy.inference.token_ids import TokenIds
from cacheproxy.inference.tokenizer import Tokenizer

OWN_NAME, OPENAI_NAME = "all-MiniLM-L6-v2", "text-embedding-3-small"
CL100K, O200K = ENCODING_NAMES

SENTENCE = (
    "how do I reset my password? please don't 3.14 the a of naïve Straße 你好 こんにちは привет "
    "مرحبا नमस्ते 🧑‍🚀 def main(): \n\n \t x=1; </div> isn't [UNK] [SEP] ## <|endoftext|>"
)
WORDS = st.sampled_from(SENTENCE.split(" "))
TEXTS = st.text(min_size=1, max_size=60) | st.lists(WORDS, min_size=1, max_size=60).map(" ".join)


@pytest.fixture(scope="module")
def own(installed):
    return Tokenizer(installed.tokenizer_json, installed.max_tokens)


@pytest.fixture(scope="module")
def token_ids(own):
    return TokenIds(own, thread=None)


@pytest.fixture(scope="module")
def other():
    """A byte-level BPE tokenizer in GPT-2's form, of a vocabulary that the server does not know."""
    made = HubTokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=20_000, initial_alphabet=alphabet)
    made.train([__file__, pytest.__file__, random.__file__], trainer)
    return made


def is_right(token_ids, own, lists, texts, name=OWN_NAME) -> bool | None:
    """Return whether the model reads what it reads of the texts; None if the ids are refused."""
    try:
        vocabulary, read = token_ids.tell(lists, name)
    except BadRequest:
        return None
    ids = [own.accept(each) for each in lists] if vocabulary == "own" else own.encode(read)
    return ids == own.encode(texts)


def bare(own, texts):
    return [ids[1:-1] for ids in own.encode(texts)]


@settings(max_examples=300, deadline=None)
@given(texts=st.lists(TEXTS, min_size=1, max_size=8))
@pytest.mark.parametrize("maker", ["own", "own, bare", *ENCODING_NAMES])
def test_ids_of_a_known_tokenizer_are_read_rightly_or_refused(token_ids, own, maker, texts):
    if maker in ENCODING_NAMES:
        lists = [load_encoding(maker).encode_ordinary(text) for text in texts]
    else:
        lists = own.encode(texts) if maker == "own" else bare(own, texts)
        texts = [text for text, ids in zip(texts, lists, strict=True) if ids]
        lists = [ids for ids in lists if ids]

    if lists:
        assert is_right(token_ids, own, lists, texts) is not False


@settings(max_examples=300, deadline=None)
@given(texts=st.lists(TEXTS, min_size=1, max_size=8))
def test_cl100k_ids_are_always_read_rightly_under_an_openai_name(token_ids, own, texts):
    lists = [load_encoding(CL100K).encode_ordinary(text) for text in texts]

    assert is_right(token_ids, own, lists, texts, OPENAI_NAME)


@settings(max_examples=200, deadline=None)
@given(words=st.lists(st.text("abcdefghij ,.", min_size=3, max_size=9), min_size=40, max_size=80))
def test_ids_of_an_unknown_tokenizer_are_refused(token_ids, other, words):
    ids = other.encode(" ".join(words)).ids

    for name in (OWN_NAME, OPENAI_NAME):
        with pytest.raises(BadRequest):
            token_ids.tell([ids], name)


@settings(max_examples=300, deadline=None)
@given(ids=st.lists(st.integers(-1, 210_000), min_size=1, max_size=200))
def test_random_ids_are_refused_or_those_of_the_text_that_is_read(token_ids, own, ids):
    for name in (OWN_NAME, OPENAI_NAME):
        try:
            vocabulary, (text,) = token_ids.tell([ids], name)
        except BadRequest:
            continue
        if vocabulary == "own":
            assert own.encode([text])[0] == own.accept(ids)
        else:
            assert load_encoding(vocabulary).encode_ordinary(text) == ids


def test_ids_with_the_models_specials_are_its_own_however_few(token_ids, own):
    lists = own.encode(["hello", "a", "☃"])

    assert token_ids.tell(lists, OWN_NAME)[0] == "own"
    assert token_ids.tell([[*ids, 0, 0] for ids in lists], OWN_NAME)[0] == "own"
    assert own.accept([*lists[0], 0, 0]) == lists[0]


def test_text_that_the_usual_decoder_would_tidy_up_is_still_the_models_own(own):
    texts = ["I do not know what you 're doing , I 've no idea .", "an [UNK] word, ' n't"]

    for ids in own.encode(texts):
        assert own.encode([own.text_of(ids)]) == [ids]


def test_few_ids_are_refused_unless_the_name_or_the_setting_says_whose_they_are(token_ids, own):
    text = "how do I reset my password?"
    ids = load_encoding(CL100K).encode_ordinary(text)

    with pytest.raises(BadRequest, match=r"too few.*check_embedding_ctx_length") as refused:
        token_ids.tell([ids], OWN_NAME)
    assert refused.value.code == "ambiguous_token_ids"
    for name in (OPENAI_NAME, f"openai/{OPENAI_NAME}", "text-embedding-ada-002"):
        assert token_ids.tell([ids], name) == (CL100K, [text])
    assert TokenIds(own, None, CL100K).tell([ids], OWN_NAME) == (CL100K, [text])


@pytest.mark.parametrize("only", ["own", *ENCODING_NAMES])
def test_a_setting_admits_one_vocabulary_only(own, only):
    text = SENTENCE * 4
    reader = TokenIds(own, None, only)
    made = {
        "own": own.encode([text])[0],
        CL100K: load_encoding(CL100K).encode_ordinary(text),
        O200K: load_encoding(O200K).encode_ordinary(text),
    }

    assert reader.tell([made.pop(only)], OPENAI_NAME)[0] == only
    for ids in made.values():
        with pytest.raises(BadRequest) as refused:
            reader.tell([ids], OPENAI_NAME)
        assert refused.value.code == "unknown_token_ids"


@pytest.mark.parametrize("name", ENCODING_NAMES)
def test_the_shipped_vocabularies_are_those_of_tiktoken(name, monkeypatch):
    def same_ranks(_url, expected_hash):
        digests.append(expected_hash)
        return load_encoding(name)._mergeable_ranks

    from tiktoken_ext import openai_public

    digests = []
    monkeypatch.setattr(openai_public, "load_tiktoken_bpe", same_ranks)
    made = tiktoken.Encoding(**getattr(openai_public, name)())

    assert made._pat_str == load_encoding(name)._pat_str
    # `load_encoding` has checked the file against this digest.
    from cacheproxy.inference import openai_encodings

    assert digests == [openai_encodings._SHA256[name]]


@settings(max_examples=300, deadline=None)
@given(texts=st.lists(TEXTS, min_size=1, max_size=20), share=st.floats(0, 1))
@pytest.mark.parametrize("name", ENCODING_NAMES)
def test_the_ids_of_a_long_text_are_read_in_pieces_without_a_split_character(name, texts, share):
    beginning = "the quick brown fox. " * 60
    text = beginning + "".join(texts)
    ids = load_encoding(name).encode_ordinary(text)
    cut = 280 + int(share * (len(ids) - 281))

    pieces = texts_of(name, [ids[:cut], ids[cut:]])
    # A cut may change how the rest is split into words (seen in odd mixtures of scripts): refused.
    assume(pieces is not None)
    first, second = pieces

    lost = len(text) - len(first) - len(second)
    assert lost in (0, 1)
    assert (first, second) == (text[: len(first)], text[len(first) + lost :])


def test_a_character_that_a_cut_splits_is_left_out():
    ids = load_encoding(CL100K).encode_ordinary("word " * 300 + "𒀀")
    assert len(ids) > 300 + 3
    head, tail = ids[:-1], ids[-1:]

    assert texts_of(CL100K, [head]) == ["word " * 300]
    assert texts_of(CL100K, [tail]) is None
    assert texts_of(CL100K, [head, [*tail, *ids[:5]]]) is not None


@pytest.mark.parametrize(
    ("name", "encoding"),
    [
        ("text-embedding-3-large", CL100K),
        ("gpt-4o-mini", O200K),
        ("gpt2", None),
        (OWN_NAME, None),
    ],
)
def test_the_names_of_openais_models_say_which_vocabulary_they_read(name, encoding):
    assert encoding_of_model(name) == encoding


def test_a_run_of_spaces_takes_no_endless_time():
    encoding = load_encoding(O200K)
    longest = max(encoding._mergeable_ranks, key=len)
    ids = [encoding._mergeable_ranks[longest]] * 32_768

    assert texts_of(O200K, [ids]) is None
