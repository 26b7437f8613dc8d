"""Token ids of any tokenizer are read as the text that they stand for, or refused.

"Right" means that the model reads exactly the ids that it would read of the text itself, so that
the vectors are equal. `test_token_id_clients` compares the vectors of the real server.
"""

import random

import pytest
import tiktoken
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as HubTokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers

from cacheproxy.errors import BadRequest
from cacheproxy.inference.openai_encodings import (
    ENCODING_NAMES,
    encoding_of_model,
    is_common_word,
    load_encoding,
    texts_of,
)
from cacheproxy.inference.plausibility import evidence_of
from cacheproxy.inference.token_ids import TokenIds
from cacheproxy.inference.tokenizer import Tokenizer

FIXTURE = HealthCheck.function_scoped_fixture
OWN_NAME, OPENAI_NAME = "all-MiniLM-L6-v2", "text-embedding-3-small"
CL100K, O200K = ENCODING_NAMES

SENTENCE = (
    "how do I reset my password? please don't 3.14 the a of naïve Straße 你好 こんにちは привет "
    "مرحبا नमस्ते 🧑‍🚀 def main(): \n\n \t x=1; </div> isn't [UNK] [SEP] ## <|endoftext|>"
)
WORDS = st.sampled_from(SENTENCE.split(" "))
WRITTEN = (
    "How do I reset my password if I no longer have the phone?",
    "The launch is on the ninth of May, and nobody has told the press.",
    "what is the best way to learn to play the piano as an adult",
    "Wie setze ich mein Passwort zurück, wenn ich das Telefon nicht mehr habe?",
    "Comment puis-je changer mon mot de passe si je n'ai plus mon téléphone ?",
    "¿Cómo puedo cambiar la contraseña si ya no tengo el teléfono?",
    "Como faço para trocar a senha se não tenho mais o telefone?",
    "Come posso cambiare la password se non ho più il telefono?",
    "Hoe kan ik mijn wachtwoord wijzigen als ik de telefoon niet meer heb?",
    "Hur byter jag mitt lösenord om jag inte längre har telefonen?",
    "Jak mogę zmienić hasło, jeśli nie mam już tego telefonu?",
    "Telefonum artık yoksa şifremi nasıl değiştirebilirim?",
    "Как мне сменить пароль, если у меня больше нет телефона?",
    "Πώς μπορώ να αλλάξω τον κωδικό μου αν δεν έχω πια το τηλέφωνο;",
    "كيف يمكنني تغيير كلمة المرور إذا لم يعد لدي الهاتف؟",
    "אם אין לי יותר את הטלפון, איך אני משנה את הסיסמה?",
    "अगर मेरे पास फ़ोन नहीं है तो मैं पासवर्ड कैसे बदलूँ?",
    "如果我没有手机了，怎么修改密码？",
    "電話がもうない場合、パスワードを変更するにはどうすればいいですか？",
    "전화기가 더 이상 없으면 비밀번호를 어떻게 바꾸나요?",
)
ENGLISH = WRITTEN[:3]
REAL = ("intents_hwu64", "queries_nq_dev", "queries_stackexchange_dev", "clusters_qqp_dev")
TEXTS = st.text(min_size=1, max_size=60) | st.lists(WORDS, min_size=1, max_size=60).map(" ".join)


@pytest.fixture(scope="module")
def own(installed):
    return Tokenizer(installed.tokenizer_json, installed.max_tokens)


@pytest.fixture
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


def is_right(token_ids, own, lists, texts, name=OWN_NAME, caller="") -> bool | None:
    """Return whether the model reads what it reads of the texts; None if the ids are refused."""
    try:
        vocabulary, read = token_ids.tell(lists, name, caller)
    except BadRequest:
        return None
    ids = [own.accept(each) for each in lists] if vocabulary == "own" else own.encode(read)
    return ids == own.encode(texts)


def bare(own, texts):
    return [ids[1:-1] for ids in own.encode(texts)]


def made_by(own, maker, texts):
    """Return the ids of texts by a tokenizer's name; "own, bare" leaves the special tokens out."""
    if maker in ENCODING_NAMES:
        return [load_encoding(maker).encode_ordinary(text) for text in texts]
    return own.encode(texts) if maker == "own" else bare(own, texts)


@settings(max_examples=50, deadline=None, suppress_health_check=[FIXTURE])
@given(texts=st.lists(st.sampled_from(WRITTEN), min_size=1, max_size=6))
@pytest.mark.parametrize("name", [OWN_NAME, OPENAI_NAME])
@pytest.mark.parametrize("maker", ["own", "own, bare", *ENCODING_NAMES])
def test_ids_of_a_written_text_are_read_rightly_or_refused(token_ids, own, maker, name, texts):
    assert is_right(token_ids, own, made_by(own, maker, texts), texts, name) is not False


@pytest.mark.parametrize("maker", ["own, bare", *ENCODING_NAMES])
def test_no_part_of_a_written_text_is_read_as_another_text(own, maker):
    for text in WRITTEN:
        words = text.split()
        for end in range(min(3, len(words)), len(words) + 1):
            part = " ".join(words[:end])
            lists = made_by(own, maker, [part])
            for name in (OWN_NAME, OPENAI_NAME):
                right = is_right(TokenIds(own, thread=None), own, lists, [part], name)
                assert right is not False, part
                if (maker, name) == (CL100K, OPENAI_NAME) and (text in ENGLISH or part == text):
                    assert right, part


@settings(max_examples=100, deadline=None)
@given(texts=st.lists(TEXTS, min_size=1, max_size=8))
@pytest.mark.parametrize("maker", ["own", "own, bare", *ENCODING_NAMES])
def test_a_setting_has_any_text_read_rightly(own, maker, texts):
    lists = made_by(own, maker, texts)
    texts = [text for text, ids in zip(texts, lists, strict=True) if ids]
    lists = [ids for ids in lists if ids]
    only = TokenIds(own, None, "own" if maker == "own, bare" else maker)

    if lists:
        assert is_right(only, own, lists, texts)


@pytest.mark.parametrize("text", ["hi", "Hello", "thanks", "weather", "Berlin", "What's new?"])
def test_single_words_of_a_caller_who_has_sent_such_ids_are_read_as_those(token_ids, own, text):
    assert is_right(token_ids, own, made_by(own, CL100K, ENGLISH), ENGLISH, OPENAI_NAME)
    assert is_right(token_ids, own, made_by(own, CL100K, [text]), [text], OPENAI_NAME)


def test_only_a_caller_who_has_sent_the_names_ids_gets_the_benefit_of_the_doubt(own):
    token_ids = TokenIds(own, thread=None)
    lists = made_by(own, CL100K, ["weather"])
    clear = {maker: made_by(own, maker, WRITTEN[:1]) for maker in ("own, bare", CL100K)}

    def assert_refused(caller):
        with pytest.raises(BadRequest, match=r"embeddings\.token_ids") as refused:
            token_ids.tell(lists, OPENAI_NAME, caller)
        assert refused.value.code == "ambiguous_token_ids"

    assert_refused("a")
    assert token_ids.tell(clear[CL100K], OPENAI_NAME, "a")[0] == CL100K
    assert token_ids.tell(lists, OPENAI_NAME, "a") == (CL100K, ["weather"])
    assert_refused("b")
    assert token_ids.tell(clear["own, bare"], OPENAI_NAME, "a")[0] == "own"
    assert_refused("a")
    assert token_ids.tell(clear[CL100K], OPENAI_NAME, "a")[0] == CL100K
    assert token_ids.tell(lists, OPENAI_NAME, "a")[0] == CL100K


@pytest.mark.parametrize("name", [OWN_NAME, OPENAI_NAME])
@pytest.mark.parametrize("maker", ["own, bare", *ENCODING_NAMES])
def test_of_real_texts_less_than_one_in_a_thousand_is_read_wrongly(own, shared_rows, maker, name):
    rows = [row for file in REAL for row in shared_rows(f"{file}.jsonl")[::20]]
    texts = [row["text"] for row in rows]
    token_ids = TokenIds(own, thread=None)
    read = [
        is_right(token_ids, own, [ids], [text], name)
        for text, ids in zip(texts, made_by(own, maker, texts), strict=True)
    ]

    assert read.count(False) <= len(texts) / 1_000
    if (maker, name) == (CL100K, OPENAI_NAME):
        assert read.count(None) <= len(texts) / 100


@pytest.mark.parametrize(
    ("maker", "text"),
    [("own, bare", "define war now"), ("own, bare", "play war now"), (O200K, "define art")],
)
def test_a_reading_of_ordinary_words_is_not_enough_of_a_caller_never_seen_before(own, maker, text):
    with pytest.raises(BadRequest):
        TokenIds(own, thread=None).tell(made_by(own, maker, [text]), OPENAI_NAME)


@pytest.mark.parametrize("name", [OPENAI_NAME, OWN_NAME])
@pytest.mark.parametrize(
    ("text", "lead"),
    [("John von Neumann", 6), ("Data Driven Development vs Market Driven Development", 5)],
)
def test_a_reading_of_a_few_ordinary_words_that_the_name_does_not_promise_is_not_enough(
    own, name, text, lead
):
    """Read as another tokenizer's, the ids spell words as ordinary as "NULL yourself it's"."""
    token_ids = TokenIds(own, thread=None)
    ids = load_encoding(CL100K).encode_ordinary(text)
    readings = token_ids._readings([ids])
    evidence = {each: evidence_of(texts, is_common_word) for each, texts in readings.items()}
    assert max(evidence.values()) - evidence[CL100K] > lead  # the other reading is clearly better

    with pytest.raises(BadRequest) as refused:
        token_ids.tell([ids], name)
    assert refused.value.code == "ambiguous_token_ids"


@pytest.mark.parametrize("maker", ["own, bare", CL100K, O200K])
def test_of_callers_never_seen_before_none_is_read_wrongly(own, shared_rows, maker):
    rows = [row for file in REAL for row in shared_rows(f"{file}.jsonl")[::20]]
    texts = [row["text"] for row in rows]
    token_ids = TokenIds(own, thread=None)
    read = [
        is_right(token_ids, own, [ids], [text], OPENAI_NAME, caller=str(i))
        for i, (text, ids) in enumerate(zip(texts, made_by(own, maker, texts), strict=True))
    ]

    assert read.count(False) == 0
    if maker == CL100K:
        # 41 of these 1,307 texts, which are always the same: 3.1 %, 29 of them of at most three
        # words. A lead of 7 in place of 8 would refuse 37, and read a text of another file wrongly.
        # The bound leaves room for four more.
        assert read.count(None) <= 0.035 * len(texts)


@settings(max_examples=50, deadline=None, suppress_health_check=[FIXTURE])
@given(words=st.lists(st.text("abcdefghij ,.", min_size=3, max_size=9), min_size=40, max_size=80))
def test_ids_of_an_unknown_tokenizer_are_refused(token_ids, other, words):
    ids = other.encode(" ".join(words)).ids

    for name in (OWN_NAME, OPENAI_NAME):
        with pytest.raises(BadRequest):
            token_ids.tell([ids], name)


@settings(max_examples=100, deadline=None, suppress_health_check=[FIXTURE])
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
    text = "password reset"
    ids = load_encoding(CL100K).encode_ordinary(text)

    with pytest.raises(BadRequest, match="check_embedding_ctx_length") as refused:
        token_ids.tell([ids], OWN_NAME)
    assert refused.value.code == "ambiguous_token_ids"
    token_ids.tell(made_by(own, CL100K, ENGLISH), OPENAI_NAME)
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
