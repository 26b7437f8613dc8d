"""Responses, Messages and legacy completions, through the official clients, unmodified."""

import anthropic
import openai
import pytest


@pytest.fixture
def oai(chat):
    return openai.OpenAI(base_url=f"{chat.url}/v1", api_key="unused", max_retries=0)


@pytest.fixture
def claude(chat):
    return anthropic.Anthropic(base_url=chat.url, api_key="unused", max_retries=0)


def status_of(raw):
    return raw.headers["cache-status"]


def test_a_response_is_cached_and_a_stream_of_it_replayed_event_by_event(oai, upstream):
    asked = {"model": "r1", "input": "What is a response?"}
    first = oai.responses.with_raw_response.create(**asked)
    count = len(upstream)
    again = oai.responses.with_raw_response.create(**asked)

    assert "fwd=miss" in status_of(first)
    assert "hit" in status_of(again)
    assert (
        first.parse().output_text == again.parse().output_text == "You asked: What is a response?"
    )
    with oai.responses.stream(**asked) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert final.output_text == "You asked: What is a response?"
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"
    assert final.usage.total_tokens == 7
    assert len(upstream) == count


def test_a_streamed_response_is_kept_and_answers_a_whole_request(oai, upstream):
    asked = {"model": "r1", "input": [{"role": "user", "content": "Streamed first?"}]}
    with oai.responses.stream(**asked) as stream:
        told = "".join(e.delta for e in stream if e.type == "response.output_text.delta")
    count = len(upstream)

    assert oai.responses.create(**asked).output_text == told == "You asked: Streamed first?"
    assert len(upstream) == count


@pytest.mark.parametrize(
    "more",
    [
        {"store": True},
        {"previous_response_id": "resp_0"},
        {"background": True},
        {"tools": [{"type": "web_search_preview"}]},
    ],
    ids=lambda more: next(iter(more)),
)
def test_a_response_that_refers_to_state_or_tools_bypasses_the_tiers(oai, more):
    asked = {"model": "r1", "input": "Stateful?", **more}
    for _ in range(2):
        raw = oai.responses.with_raw_response.create(**asked)
        assert "fwd=bypass" in status_of(raw)


def test_a_message_is_cached_and_a_stream_of_it_replayed_event_by_event(claude, upstream):
    asked = {
        "model": "c1",
        "max_tokens": 64,
        "messages": [{"role": "user", "content": "What is a message?"}],
    }
    first = claude.messages.with_raw_response.create(**asked)
    count = len(upstream)
    again = claude.messages.with_raw_response.create(**asked)

    assert "fwd=miss" in status_of(first)
    assert "hit" in status_of(again)
    assert first.parse().content[0].text == again.parse().content[0].text
    with claude.messages.stream(**asked) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_message()
    assert final.content[0].text == "You asked: What is a message?"
    assert (final.usage.input_tokens, final.usage.output_tokens) == (3, 4)
    assert final.stop_reason == "end_turn"
    assert {"message_start", "content_block_delta", "message_stop"} <= set(kinds)
    assert len(upstream) == count


def test_a_streamed_message_is_kept_and_answers_a_whole_request(claude, upstream):
    asked = {
        "model": "c1",
        "max_tokens": 64,
        "system": "Be brief.",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Streamed?"}]}],
    }
    with claude.messages.stream(**asked) as stream:
        told = "".join(stream.text_stream)
    count = len(upstream)

    assert claude.messages.create(**asked).content[0].text == told == "You asked: Streamed?"
    assert len(upstream) == count
    sent = upstream.last.headers
    assert sent["anthropic-version"]


def test_a_message_with_tools_bypasses_the_tiers(claude):
    raw = claude.messages.with_raw_response.create(
        model="c1",
        max_tokens=8,
        messages=[{"role": "user", "content": "Tools?"}],
        tools=[{"name": "t", "input_schema": {"type": "object"}}],
    )
    assert "fwd=bypass" in status_of(raw)


def test_legacy_completions_are_cached_whole_and_streamed(oai, upstream):
    asked = {"model": "l1", "prompt": "Say something"}
    first = oai.completions.with_raw_response.create(**asked)
    count = len(upstream)

    assert "fwd=miss" in status_of(first)
    assert oai.completions.create(**asked).choices[0].text == "You asked: Say something"
    parts = list(oai.completions.create(**asked, stream=True))
    assert "".join(part.choices[0].text for part in parts) == "You asked: Say something"
    assert parts[-1].choices[0].finish_reason == "stop"
    assert len(upstream) == count


def test_apis_do_not_share_entries(oai, claude, upstream):
    question = "Whose is this?"
    answers = [
        oai.responses.create(model="s1", input=question),
        claude.messages.create(
            model="s1", max_tokens=9, messages=[{"role": "user", "content": question}]
        ),
        oai.completions.create(model="s1", prompt=question),
        oai.chat.completions.create(model="s1", messages=[{"role": "user", "content": question}]),
    ]
    assert len({answer.id for answer in answers}) == 4
