"""Which chat completions are cached, under which key, for whom, and for how long."""

import json

import pytest
from asking import wait_until
from chatting import MESSAGES, PATH, ask, body_for, events_of, status_of, stream
from upstream import Upstream, chunks, completion


@pytest.mark.parametrize(
    "more",
    [
        {"seed": 1},
        {"temperature": 0.5},
        {"max_tokens": 5},
        {"user": "alice"},
        {"response_format": {"type": "json_object"}},
        {"some_new_field": None},
        {"model": "gpt-other"},
        {"messages": [{"role": "system", "content": "Be brief."}, *MESSAGES]},
        {"messages": [{"role": "user", "content": "What is a vector index? "}]},
    ],
    ids=lambda more: next(iter(more)),
)
def test_whatever_may_change_the_answer_is_part_of_the_key(chat, more):
    body = {"model": "gpt-test", "messages": MESSAGES}
    chat.http.post(PATH, json=body)

    first = chat.http.post(PATH, json={**body, **more})
    again = chat.http.post(PATH, json={**body, **more})

    assert "fwd=miss" in status_of(first)
    assert "hit" in status_of(again)


def test_the_order_of_a_bodys_fields_is_not_part_of_the_key(chat):
    body = body_for("In which order?", temperature=0)
    chat.http.post(PATH, json=body)

    turned = chat.http.post(PATH, json=dict(reversed(body.items())))

    assert "hit" in status_of(turned)


TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}
IMAGE = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}


@pytest.mark.parametrize(
    "more",
    [
        {"tools": [TOOL]},
        {"functions": [{"name": "f"}]},
        {"messages": [{"role": "user", "content": [IMAGE]}]},
        {"messages": [*MESSAGES, {"role": "tool", "tool_call_id": "1", "content": "x"}]},
        {"temperature": 1.5},
        {"n": 2},
        {"store": False},
    ],
    ids=["tools", "functions", "image", "tool turn", "temperature", "n", "store"],
)
def test_what_is_not_to_be_cached_is_passed_through(chat, upstream, more):
    asked = len(upstream)

    answers = [ask(chat, "Not to be cached", **more) for _ in range(2)]

    assert [status_of(answer) for answer in answers] == ["cacheproxy; fwd=bypass"] * 2
    assert len(upstream) == asked + 2


@pytest.mark.parametrize(
    "choice",
    [
        {"finish_reason": "length"},
        {"finish_reason": "content_filter"},
        {"finish_reason": None},
        {"message": {"role": "assistant", "content": ""}},
        {"message": {"role": "assistant", "content": None}},
        {"message": {"role": "assistant", "content": "x", "tool_calls": [{"id": "1"}]}},
        {"message": {"role": "assistant", "content": "x", "refusal": "No."}},
    ],
    ids=["length", "filter", "none", "empty", "null", "tool calls", "refusal"],
)
def test_what_did_not_end_by_itself_is_passed_on_and_never_stored(chat, upstream, choice):
    async def unfinished(exchange):
        answer = completion(exchange.asked, **choice)
        await exchange.answer(200, json.dumps(answer).encode())

    question = f"Unfinished {choice}"
    upstream.plan.append(unfinished)
    first = ask(chat, question)
    second = ask(chat, question)

    assert first.status_code == 200
    assert "stored" not in status_of(first)
    assert "fwd=miss" in status_of(second)


def test_a_stream_that_was_cut_by_its_length_is_passed_on_and_never_stored(chat, upstream):
    async def cut(exchange):
        await exchange.begin_stream()
        for chunk in chunks(exchange.asked, finish="length"):
            await exchange.event(chunk)
        await exchange.end_stream()

    upstream.plan.append(cut)
    first = stream(chat, "Cut short")
    events = events_of(first.content)

    assert events[-1] == "[DONE]"
    assert events[-2]["choices"][0]["finish_reason"] == "length"
    assert "fwd=miss" in status_of(stream(chat, "Cut short"))


def test_cache_control_is_honoured(chat, upstream):
    def ask_with(value):
        return ask(chat, "Under control?", headers={"cache-control": value})

    assert ask_with("only-if-cached").status_code == 504
    assert "fwd=request" in status_of(ask_with("no-store"))
    assert ask_with("only-if-cached").status_code == 504
    first = ask(chat, "Under control?")
    refreshed = ask_with("no-cache")
    assert "fwd=request; stored" in status_of(refreshed)
    assert refreshed.content != first.content
    assert ask_with("only-if-cached").content == refreshed.content
    assert "fwd=miss" in status_of(ask_with("max-age=0"))


def test_litellms_cache_field_is_understood_and_goes_no_further(chat, upstream):
    def ask_with(**cache):
        return ask(chat, "By LiteLLM's user?", cache=cache)

    assert "stored" not in status_of(ask_with(**{"no-store": True}))
    assert "cache" not in upstream.last.body
    assert "fwd=miss; stored" in status_of(ask_with(ttl=60))
    hit = ask_with()
    assert "hit" in status_of(hit)
    assert int(status_of(hit).split("ttl=")[1].split(";")[0]) <= 60
    assert "fwd=request" in status_of(ask_with(**{"no-cache": True}))
    assert "hit" in status_of(ask_with(**{"s-maxage": 600}))
    assert "fwd=miss" in status_of(ask_with(**{"s-maxage": 0}))
    assert "fwd=miss" in status_of(ask_with(namespace="mine"))
    assert "hit" in status_of(ask_with(namespace="mine"))
    named = ask(chat, "By LiteLLM's user?", headers={"x-cacheproxy-namespace": "mine"})
    assert "hit" in status_of(named)
    assert ask_with(ttl="long").status_code == 400


def test_where_callers_keys_are_passed_on_entries_are_each_callers_own(start_server, tmp_path):
    upstream = Upstream()
    config = tmp_path / "cacheproxy.toml"
    config.write_text(f'[upstreams.main]\nbase_url = "{upstream.url}"\npass_authorization = true\n')
    server = start_server("--config", str(config))

    def ask_as(key):
        raw = server.client(api_key=key).chat.completions.with_raw_response
        return raw.create(model="gpt-test", messages=MESSAGES).headers["cache-status"]

    for _ in range(2):
        ask_as("alice")
    assert "hit" in ask_as("alice")
    assert "fwd=miss" in ask_as("bob")
    assert upstream.last.headers["authorization"] == "Bearer bob"
    upstream.stop()


def test_entries_outlive_the_server(start_server, upstream):
    first = start_server("--upstream", upstream.url)
    answer = ask(first, "After a restart?")
    first.stop()

    second = start_server("--upstream", upstream.url)
    again = ask(second, "After a restart?")

    assert "detail=exact" in status_of(again)
    assert again.content == answer.content


def test_a_namespace_purge_removes_completions(start_server, upstream):
    server = start_server("--upstream", upstream.url, "--admin-port", "0")
    ask(server, "To be purged?", headers={"x-cacheproxy-tags": "t1"})
    wait_until(lambda: server.metric("writeback_queue_entries") == 0)

    purge = {"tenant": "default", "namespace": "default", "tag": "t1"}
    assert server.admin.post("/admin/purge", json=purge).json() == {"removed": 1}

    assert "fwd=miss" in status_of(ask(server, "To be purged?"))
