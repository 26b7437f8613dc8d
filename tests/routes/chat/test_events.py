"""A stream cut anywhere gives the same events, and only a whole one a completion."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.errors import UpstreamFailed
from cacheproxy.routes.dialects.chat_stream import ChatAssembler as Assembler
from cacheproxy.routes.dialects.chat_stream import as_events
from cacheproxy.routes.dialects.sse import EventCutter
from cacheproxy.routes.dialects.text import text_of

BASE = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
DONE = b"data: [DONE]"


def chunk(delta, finish=None, **more):
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: " + json.dumps({**BASE, "choices": [choice], **more}).encode()


def stream_of(text, ending=b"\n\n"):
    events = [chunk({"role": "assistant", "content": ""}), b": a comment"]
    events += [chunk({"content": character}) for character in text]
    return ending.join([*events, chunk({}, "stop"), DONE, b""])


def assembled(*events):
    assembler = Assembler()
    taken = assembler.take_all([event + b"\n\n" for event in events])
    return assembler.completion() if taken == len(events) else None


@given(
    st.text(min_size=1, max_size=10),
    st.sampled_from([b"\n\n", b"\r\n\r\n", b"\r\r"]),
    st.lists(st.integers(0, 2_000), max_size=20),
)
def test_however_the_bytes_come_the_same_is_told(text, ending, cuts):
    data = stream_of(text, ending)
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    cutter, assembler, passed = EventCutter(), Assembler(), b""
    for start, end in pairwise(places):
        events = cutter.cut(data[start:end])
        assert assembler.take_all(events) == len(events)
        passed += b"".join(events)

    assert passed == data
    assert text_of(assembler.completion().body) == text


@given(st.text(min_size=1, max_size=10), st.integers(0, 2_000))
def test_no_part_of_a_stream_is_a_completion(text, end):
    data = stream_of(text)
    part = data[: min(end, len(data) - 1)]
    cutter, assembler = EventCutter(), Assembler()
    assembler.take_all(cutter.cut(part))

    assert assembler.completion() is None


@pytest.mark.parametrize(
    "spoiled",
    [
        chunk({"tool_calls": [{"index": 0, "id": "1"}]}),
        chunk({"function_call": {"name": "f"}}),
        chunk({"refusal": "No."}),
        chunk({"content": "x"}, "length"),
        chunk({"content": "x"}, "content_filter"),
        b'data: {"error": {"message": "overloaded"}}',
        b'data: {"choices": [{"index": 1, "delta": {"content": "another"}}]}',
        b"data: {",
        b"data: []",
        DONE,
    ],
)
def test_a_stream_with_more_in_it_than_one_finished_text_is_not_kept(spoiled):
    well = [chunk({"role": "assistant", "content": "Hi"}), chunk({"content": "!"})]
    assert assembled(*well, chunk({}, "stop"), DONE) is not None
    assert assembled(*well, spoiled, chunk({}, None), DONE) is None
    if spoiled != DONE:
        assert assembled(spoiled, *well, chunk({}, None), DONE) is None


def test_what_is_unknown_in_chunks_is_kept():
    completion = assembled(
        chunk({"role": "assistant", "content": "Hi", "reasoning_content": "Let "}, x_model="y"),
        chunk({"content": "!", "reasoning_content": "me see"}),
        chunk({}, "stop", usage={"prompt_tokens": 1, "completion_tokens": 2}),
        DONE,
    )

    answer = json.loads(completion.body)
    message = answer["choices"][0]["message"]
    assert message == {"role": "assistant", "content": "Hi!", "reasoning_content": "Let me see"}
    assert answer["x_model"] == "y"
    assert (completion.has_usage, completion.completion_tokens) == (True, 2)


def test_a_replay_assembles_to_what_it_replays():
    first = assembled(
        chunk({"role": "assistant", "content": "Hi"}, system_fingerprint="fp"),
        chunk({}, "stop", usage={"prompt_tokens": 1, "completion_tokens": 2}),
        DONE,
    )
    replayed = as_events(first.body, with_usage=True)
    cutter, assembler = EventCutter(), Assembler()
    assembler.take_all(cutter.cut(replayed))

    assert json.loads(assembler.completion().body) == json.loads(first.body)


def test_an_event_without_an_end_is_refused():
    cutter = EventCutter()
    cutter.cut(b"x" * 2**19)
    with pytest.raises(UpstreamFailed):
        cutter.cut(b"x" * 2**20)
