"""Two requests share a key only if they are the same request."""

import hashlib
import unicodedata

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cacheproxy.keys import KEY_BYTES, KeyScope, Namespace, encode_fields

texts = st.text()
fields = st.lists(texts | st.binary() | st.integers(), max_size=5).map(tuple)
ids = st.lists(st.integers(0, 2**32 - 1), max_size=20)
scopes = st.tuples(texts, texts, texts)


def typed(values: tuple) -> list[tuple[type, object]]:
    return [(type(value), value) for value in values]


def decode(encoded: bytes) -> list[tuple[type, object]]:
    """Read an encoding back, which is possible only if no two inputs share one."""
    result = []
    while encoded:
        tag, length = encoded[:1], int.from_bytes(encoded[1:9], "little")
        data, encoded = encoded[9 : 9 + length], encoded[9 + length :]
        assert len(data) == length
        value = {b"s": bytes.decode, b"b": bytes, b"i": int}[tag](data)
        result.append((type(value), value))
    return result


@given(fields)
def test_fields_can_be_read_back_from_their_encoding(values):
    assert decode(encode_fields(*values)) == typed(values)


@given(fields, fields)
def test_different_fields_have_different_encodings(left, right):
    assume(typed(left) != typed(right))
    assert encode_fields(*left) != encode_fields(*right)


@given(st.text(min_size=1), st.integers(0, 10))
def test_moving_the_border_between_two_fields_changes_the_encoding(text, place):
    assume(place < len(text))
    assert encode_fields(text[:place], text[place:]) != encode_fields(text, "")


@given(st.integers(), texts)
def test_a_number_its_digits_and_their_bytes_are_three_inputs(number, text):
    digits = str(number)
    assert len({encode_fields(number), encode_fields(digits), encode_fields(digits.encode())}) == 3
    assert encode_fields(text) != encode_fields(text.encode())


@given(scopes, scopes, ids)
def test_scopes_that_differ_in_any_part_share_no_key(left, right, token_ids):
    assume(left != right)
    assert KeyScope(*left).of_ids(token_ids) != KeyScope(*right).of_ids(token_ids)
    assert KeyScope(*left).of_text("same") != KeyScope(*right).of_text("same")


@given(scopes, ids, ids)
def test_different_token_ids_have_different_keys(scope, left, right):
    assume(left != right)
    assert KeyScope(*scope).of_ids(left) != KeyScope(*scope).of_ids(right)


@given(scopes, texts, texts)
def test_different_texts_have_different_keys(scope, left, right):
    assume(left != right)
    assert KeyScope(*scope).of_text(left) != KeyScope(*scope).of_text(right)


@given(scopes, ids)
def test_token_ids_and_a_text_of_the_same_bytes_have_different_keys(scope, token_ids):
    data = b"".join(number.to_bytes(4, "little") for number in token_ids)
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = ""
    assert KeyScope(*scope).of_ids(token_ids) != KeyScope(*scope).of_text(text)


@given(scopes, ids, texts)
def test_keys_are_32_bytes_and_the_same_every_time(scope, token_ids, text):
    made = KeyScope(*scope)
    first = made.of_ids(token_ids), made.of_text(text)
    made.of_ids([1, 2, 3])
    assert (made.of_ids(token_ids), made.of_text(text)) == first
    assert (KeyScope(*scope).of_ids(token_ids), KeyScope(*scope).of_text(text)) == first
    assert [len(key) for key in first] == [KEY_BYTES, KEY_BYTES]


@given(texts)
def test_texts_that_unicode_holds_equivalent_are_different_inputs(text):
    scope = KeyScope("namespace", "embeddings", "model")
    composed, decomposed = (unicodedata.normalize(form, text + "é") for form in ("NFC", "NFD"))
    assert scope.of_text(composed) != scope.of_text(decomposed)


@pytest.mark.parametrize("other", ["a\0", "\0a", " a", "a ", "A", "a\n", "\ufeffa", "a\u200b", ""])
def test_nothing_is_trimmed_folded_or_cut_at_a_nul(other):
    scope = KeyScope("namespace", "embeddings", "model")
    assert scope.of_text("a") != scope.of_text(other)
    assert encode_fields("a") != encode_fields(other)


@given(texts, st.integers(0xD800, 0xDFFF), texts)
def test_a_lone_surrogate_has_no_key(before, surrogate, after):
    text = before + chr(surrogate) + after
    with pytest.raises(UnicodeEncodeError):
        KeyScope("namespace", "embeddings", "model").of_text(text)
    with pytest.raises(UnicodeEncodeError):
        encode_fields(text)


@given(st.tuples(texts, texts), st.tuples(texts, texts))
def test_different_namespaces_have_different_ids(left, right):
    assume(left != right)
    assert Namespace(*left).id != Namespace(*right).id


@given(texts, texts)
def test_a_namespace_id_is_32_hex_characters(tenant, name):
    assert len(bytes.fromhex(Namespace(tenant, name).id)) == 16
    assert Namespace(tenant, name).id == Namespace(tenant, name).id.lower()


def test_keys_stay_what_they_were_in_stores_already_filled():
    scope = KeyScope(Namespace("tenant", "default").id, "embeddings", "model")
    assert Namespace("tenant", "default").id == "f367f3767daa5add0f3e18f8ab2359f7"
    digests = hashlib.sha256(
        scope.of_ids([101, 2**32 - 1, 102]) + scope.of_text("aé\0")
    ).hexdigest()
    assert digests == "b088d2f063362cb8789a22eb1a76738f2e27d7c72ca7a12b9908ad898debefb4"
