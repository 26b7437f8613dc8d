"""Streams of Responses and Messages: only a whole one is kept, and a replay has its events."""

import json
from itertools import pairwise
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from other_apis import OTHER_APIS, message, response

from cacheproxy.routes.dialects.messages import MessagesDialect
from cacheproxy.routes.dialects.responses import ResponsesDialect
from cacheproxy.routes.dialects.sse import EventCutter, data_of
from cacheproxy.routes.dialects.text import text_of

DIALECTS = {"responses": ResponsesDialect(), "messages": MessagesDialect()}
WHOLE = {"responses": response, "messages": message}
QUESTIONS = st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=5).map(" ".join)
names = pytest.mark.parametrize("name", DIALECTS)


def told(name, question):
    """Return the events with which an upstream answers a question."""
    asked = SimpleNamespace(question=question, number=1, body={"model": "m"})
    return WHOLE[name](asked), OTHER_APIS[f"/{name}"][1](asked)


def as_bytes(events) -> bytes:
    return b"".join(
        f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events
    )


def kept(name, data, cuts=()):
    """Return what is kept of a stream that comes in pieces."""
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    cutter, assembler = EventCutter(), DIALECTS[name].assembler()
    for start, end in pairwise(places):
        events = cutter.cut(data[start:end])
        if assembler.take_all(events) < len(events):
            return None
    return assembler.completion()


@names
@settings(max_examples=60, deadline=None)
@given(question=QUESTIONS, cuts=st.lists(st.integers(0, 9_000), max_size=10))
def test_however_the_bytes_come_the_whole_answer_is_kept(name, question, cuts):
    whole, events = told(name, question)

    completion = kept(name, as_bytes(events), cuts)

    assert text_of(completion.body) == f"You asked: {question}"
    assert (completion.prompt_tokens, completion.completion_tokens) == (3, 4)
    assert json.loads(completion.body) == whole


@names
@settings(max_examples=100, deadline=None)
@given(question=QUESTIONS, data=st.data())
def test_nothing_is_kept_of_a_stream_that_ends_early(name, question, data):
    _, events = told(name, question)
    stream = as_bytes(events)
    end = data.draw(st.integers(0, len(stream) - 1))

    assert kept(name, stream[:end]) is None


ENDS = {
    "responses": [
        {"type": "error", "code": "server_error", "message": "overloaded", "param": None},
        {"type": "response.failed", "response": {"object": "response", "status": "failed"}},
        {"type": "response.incomplete", "response": {"object": "response", "status": "incomplete"}},
    ],
    "messages": [
        {"type": "error", "error": {"type": "overloaded_error", "message": "overloaded"}},
        {"type": "message_delta", "delta": {"stop_reason": "max_tokens"}},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}},
        {
            "type": "content_block_start",
            "index": 1,
            "content_block": {"type": "tool_use", "id": "t", "name": "f", "input": {}},
        },
    ],
}


@names
@settings(max_examples=100, deadline=None)
@given(question=QUESTIONS, data=st.data())
def test_nothing_is_kept_of_a_stream_with_another_end_wherever_that_comes(name, question, data):
    _, events = told(name, question)
    # What follows the end that was promised cannot make the answer incomplete.
    place = data.draw(st.integers(1, len(events) - 1))
    end = data.draw(st.sampled_from(ENDS[name]))
    if end["type"] == "message_delta":  # the last one counts
        events = [event for event in events if event["type"] != "message_delta"]
        place = min(place, len(events) - 1)
    spoiled = [*events[:place], end, *events[place:]]

    assert kept(name, as_bytes(spoiled)) is None


@names
@settings(max_examples=100, deadline=None)
@given(question=QUESTIONS, data=st.data())
def test_nothing_is_kept_of_a_stream_that_lacks_what_the_clients_would_miss(name, question, data):
    whole, events = told(name, question)
    missing = data.draw(st.integers(0, len(events) - 1))
    completion = kept(name, as_bytes(events[:missing] + events[missing + 1 :]))

    if completion is not None and "delta" not in events[missing]["type"]:
        assert json.loads(completion.body) == whole, events[missing]


@names
@settings(max_examples=60, deadline=None)
@given(question=QUESTIONS, cuts=st.lists(st.integers(0, 9_000), max_size=4))
def test_a_replay_has_the_events_of_the_first_stream_and_is_kept_as_the_same(name, question, cuts):
    _, events = told(name, question)
    completion = kept(name, as_bytes(events))

    replayed = DIALECTS[name].replay(completion.body, with_usage=True)

    again = [json.loads(data_of(event)) for event in EventCutter().cut(replayed)]
    kinds = [event["type"] for event in again]
    first = [event["type"] for event in events if event["type"] != "ping"]
    assert list(dict.fromkeys(kinds)) == list(dict.fromkeys(first))
    assert [event.get("sequence_number") for event in again] == [
        number if name == "responses" else None for number in range(len(again))
    ]
    assert json.loads(kept(name, replayed, cuts).body) == json.loads(completion.body)
