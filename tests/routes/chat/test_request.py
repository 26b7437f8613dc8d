"""What makes two chat requests the same, and what keeps them from being near each other."""

import contextlib

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cacheproxy.errors import BadRequest
from cacheproxy.routes.dialects.chat import ChatDialect

texts = st.text(max_size=30)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-1e6, 1e6) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
NOT_IN_KEY = ("stream", "stream_options", "cache")
extras = st.dictionaries(
    texts.filter(lambda name: name not in (*NOT_IN_KEY, "model", "messages")),
    json_values,
    max_size=3,
)
messages = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["system", "user"]), "content": texts}),
    min_size=1,
    max_size=3,
)
bodies = st.builds(
    lambda model, messages, more: {**more, "model": model, "messages": messages},
    st.sampled_from(["a", "b"]),
    messages,
    extras,
)


def parsed(body):
    return ChatDialect().parse(msgspec.json.encode(body), max_temperature=1)


@given(bodies, bodies)
def test_requests_have_one_key_only_if_all_that_matters_is_equal(one, other):
    as_sent = [msgspec.json.decode(msgspec.json.encode(body)) for body in (one, other)]
    is_same = msgspec.json.encode(as_sent[0], order="deterministic") == msgspec.json.encode(
        as_sent[1], order="deterministic"
    )
    assert (parsed(one).canonical() == parsed(other).canonical()) == is_same


@given(bodies, st.sampled_from(NOT_IN_KEY), json_values)
def test_how_an_answer_is_sent_is_no_part_of_the_key(body, name, value):
    assert parsed(body).canonical() == parsed({**body, name: value}).canonical()


@pytest.mark.parametrize(
    "pair", [(1, 1.0), (1, True), (1, "1"), (None, "absent"), ("\u00e9", "e\u0301")]
)
def test_values_that_only_look_alike_are_different(pair):
    one, other = ({"model": "m", "messages": [], "x": value} for value in pair)
    assert parsed(one).canonical() != parsed(other).canonical()


questions = st.builds(
    lambda body, text: {**body, "messages": [*body["messages"], {"role": "user", "content": text}]},
    bodies,
    st.sampled_from(["What?", "Why?", "Why 2?"]),
)


@given(questions, questions)
def test_turns_share_a_context_only_if_all_but_the_last_text_is_equal(one, other):
    turns = [parsed(body).user_turn("scope") for body in (one, other)]

    def rest(body):
        *earlier, last = body["messages"]
        kept = {**body, "messages": [*earlier, {**last, "content": None}]}
        return msgspec.json.encode(kept, order="deterministic")

    assume(None not in turns)
    if turns[0].context == turns[1].context:
        assert rest(one) == rest(other)
    assert parsed(one).user_turn("another scope").context != turns[0].context


def test_a_turn_in_parts_is_their_text():
    parts = [{"type": "text", "text": "What is"}, {"type": "text", "text": "this?"}]
    body = {"model": "m", "messages": [{"role": "user", "content": parts}]}

    assert parsed(body).user_turn("").question == "What is\nthis?"


@pytest.mark.parametrize(
    "last",
    [{"role": "assistant", "content": "Hi"}, {"role": "user", "content": " "}, {"role": "user"}],
)
def test_a_request_that_does_not_end_with_a_user_has_no_turn(last):
    assert parsed({"model": "m", "messages": [last]}).user_turn("") is None


@given(st.binary(max_size=60))
def test_any_bytes_are_a_request_or_refused(body):
    with contextlib.suppress(BadRequest):
        ChatDialect().parse(body, max_temperature=1)


def test_the_cache_field_is_taken_out_and_the_rest_is_sent():
    request = parsed({"model": "m", "messages": [], "cache": {"ttl": 5}, "x": 1})

    assert request.cache == {"ttl": 5}
    assert msgspec.json.decode(request.body) == {"model": "m", "messages": [], "x": 1}


def test_a_cache_field_of_another_kind_is_the_upstreams():
    assert b'"cache":true' in parsed({"model": "m", "messages": [], "cache": True}).body


def test_asked_whole_a_request_is_the_same_but_for_its_form():
    body = {"model": "m", "messages": [], "stream": True, "stream_options": {}, "seed": 1}

    plain = msgspec.json.decode(parsed(body).plain_body())

    assert plain == {"model": "m", "messages": [], "seed": 1}


@pytest.mark.parametrize("question", ["a " * 1_001, "\u00ab" * 16 * 10**6])
def test_a_question_that_is_too_long_for_the_probe_has_no_user_turn(question):
    request = parsed({"model": "m", "messages": [{"role": "user", "content": question}]})

    assert request.user_turn("") is None
