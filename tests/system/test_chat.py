"""Chat completions through the real server: hits, streams, and what is passed on untouched."""

import json
import subprocess
import threading

import openai
import pytest
from asking import wait_until
from chatting import PATH, ask, body_for, check_stream, events_of, status_of, text_of, told
from upstream import Upstream, answer_to, chunks, completion, says

MESSAGES = [{"role": "user", "content": "What is a vector index?"}]


def stream(server, question, **more):
    response = ask(server, question, stream=True, **more)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    return response


def test_the_second_answer_is_the_upstreams_first_byte_for_byte(chat, upstream):
    first, asked = ask(chat, "What is a cache?"), len(upstream)
    second = ask(chat, "What is a cache?")

    assert (first.status_code, second.status_code) == (200, 200)
    assert "fwd=miss; stored" in status_of(first)
    assert "hit" in status_of(second)
    assert second.content == first.content
    assert second.json()["x_unknown"] == {"kept": True}
    assert len(second.headers["x-cacheproxy-entry"]) == 64
    assert int(second.headers["age"]) >= 0
    assert len(upstream) == asked


def test_the_body_reaches_the_upstream_byte_for_byte(chat, upstream):
    raw = b'{ "model":"gpt-test", "messages":[{"role":"user","content":"H\\u00e9?"}], "x": 1.50 }'

    chat.http.post(PATH, content=raw)

    assert upstream.asked[-1].raw == raw


@pytest.mark.parametrize("with_usage", [False, True])
def test_a_streamed_miss_is_the_upstreams_stream_and_its_hit_tells_the_same(chat, with_usage):
    options = {"stream_options": {"include_usage": True}} if with_usage else {}
    question = f"Stream me with usage {with_usage}"

    miss = stream(chat, question, **options)
    hit = stream(chat, question, **options)

    assert "fwd=miss" in status_of(miss)
    assert "hit" in status_of(hit)
    expected = check_stream(miss.content, with_usage=with_usage)
    found = check_stream(hit.content, with_usage=with_usage)
    assert told(found) == told(expected) == answer_to(question)
    assert found[0]["id"] == expected[0]["id"]
    if with_usage:
        assert found[-2]["usage"] == expected[-2]["usage"]


def test_streamed_and_plain_answers_share_an_entry(chat, upstream):
    plain = ask(chat, "Shared by both forms?")
    asked = len(upstream)
    streamed = stream(chat, "Shared by both forms?", stream_options={"include_usage": True})

    assert len(upstream) == asked
    assert told(check_stream(streamed.content, with_usage=True)) == text_of(plain)


def test_an_entry_without_usage_serves_nobody_who_wants_it(chat, upstream):
    question = "A stream that told no usage?"
    stream(chat, question)
    asked = len(upstream)

    assert "hit" in status_of(stream(chat, question))
    plain = ask(chat, question)

    assert "fwd=miss" in status_of(plain)
    assert plain.json()["usage"]["total_tokens"] > 0
    assert len(upstream) == asked + 1


def test_a_request_that_is_recognised_gets_no_less_than_it_asks_for(chat):
    question = "Refreshed by a stream?"
    for _ in range(3):
        ask(chat, question)  # by the last one it is known by its bytes
    stream(chat, question, headers={"cache-control": "no-cache"})

    assert ask(chat, question).json()["usage"]["total_tokens"] > 0


def test_the_official_client_works_unchanged(chat, upstream):
    client = chat.client()

    answers = [client.chat.completions.create(model="m", messages=MESSAGES) for _ in range(2)]
    parts = list(
        client.chat.completions.create(
            model="m", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        )
    )

    assert answers[0] == answers[1]
    text = answers[0].choices[0].message.content
    assert text == answer_to(MESSAGES[0]["content"])
    assert "".join(part.choices[0].delta.content or "" for part in parts[:-1]) == text
    assert parts[-1].usage == answers[0].usage
    assert sum(asked.question == MESSAGES[0]["content"] for asked in upstream.asked) == 1


@pytest.mark.parametrize("is_hit", [False, True])
def test_the_official_clients_stream_helper_works(chat, is_hit):
    if is_hit:
        ask(chat, "For the helper?")
    question = "For the helper?" if is_hit else "For the helper, unseen?"

    with chat.client().chat.completions.stream(
        model="gpt-test", messages=[{"role": "user", "content": question}]
    ) as events:
        final = events.get_final_completion()

    assert final.choices[0].message.content == answer_to(question)


def test_curl_gets_its_answer_whole_and_streamed(chat):
    def curl(body):
        command = ["curl", "-sN", f"{chat.url}{PATH}", "-H", "content-type: application/json"]
        done = subprocess.run([*command, "-d", json.dumps(body)], capture_output=True, timeout=20)
        return done.stdout

    for _ in range(2):
        answer = json.loads(curl(body_for("By curl?")))
        assert answer["choices"][0]["message"]["content"] == answer_to("By curl?")
        streamed = check_stream(curl(body_for("By curl, streamed?", stream=True)), with_usage=False)
        assert told(streamed) == answer_to("By curl, streamed?")


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
def test_an_unfinished_answer_is_forwarded_and_never_stored(chat, upstream, choice):
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


def test_identical_streams_in_flight_share_one_call(chat, upstream):
    gate = upstream.gate()

    async def slow(exchange):
        told = chunks(exchange.asked)
        await exchange.begin_stream()
        for chunk in told[:2]:
            await exchange.event(chunk)
        await gate.passed()
        for chunk in told[2:]:
            await exchange.event(chunk)
        await exchange.end_stream()

    upstream.plan.append(slow)
    asked, bodies, begun = len(upstream), [], []

    def follow():
        with chat.http.stream("POST", PATH, json=body_for("Many ask", stream=True)) as response:
            parts = response.iter_raw()
            first = next(parts)
            begun.append(response.headers["cache-status"])
            bodies.append(first + b"".join(parts))

    threads = [threading.Thread(target=follow) for _ in range(6)]
    threads[0].start()
    wait_until(lambda: len(begun) == 1)
    for thread in threads[1:]:
        thread.start()
    wait_until(lambda: len(begun) == 6)  # who joins late has the beginning before it goes on
    gate.open()
    for thread in threads:
        thread.join(20)

    assert len(upstream) == asked + 1
    assert len(bodies) == 6
    for body in bodies:
        assert told(check_stream(body, with_usage=False)) == answer_to("Many ask")
    assert sum("collapsed" in status for status in begun) == 5


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
    assert "cache" not in upstream.asked[-1].body
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


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'"x"', b"{}", b'{"model": 1, "messages": []}', b'{"model": ""}', b"\xff"],
)
def test_a_body_that_names_no_model_is_refused_before_the_upstream_is_asked(chat, upstream, body):
    asked = len(upstream)

    response = chat.http.post(PATH, content=body)

    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"
    assert len(upstream) == asked


@pytest.mark.parametrize("messages", [None, [], "hello", [1], [{"role": "user", "content": 1}]])
def test_what_else_is_odd_is_the_upstreams_to_judge(chat, upstream, messages):
    upstream.plan.append(says(422, b'{"error": {"message": "odd messages"}}'))

    response = chat.http.post(PATH, json={"model": "gpt-test", "messages": messages})

    assert response.status_code == 422
    assert response.json() == {"error": {"message": "odd messages"}}
    assert status_of(response) == "cacheproxy; fwd=bypass; fwd-status=422"


def test_the_configured_key_is_sent_upstream_and_the_callers_is_not(start_server, tmp_path):
    upstream = Upstream()
    config = tmp_path / "cacheproxy.toml"
    config.write_text(
        f'[upstreams.main]\nbase_url = "{upstream.url}"\napi_key = "$UPSTREAM_KEY"\n'
        'models = ["gpt-test"]\n'
    )
    server = start_server("--config", str(config), env={"UPSTREAM_KEY": "sk-ours"})
    headers = {"cookie": "a=b", "x-api-key": "theirs", "openai-project": "p", "te": "trailers"}

    answer = server.client(api_key="sk-theirs").chat.completions.create(
        model="gpt-test", messages=MESSAGES, extra_headers=headers
    )

    assert answer.choices
    sent = upstream.asked[-1].headers
    assert sent["authorization"] == "Bearer sk-ours"
    assert sent["openai-project"] == "p"
    assert not {"cookie", "x-api-key", "te"} & sent.keys()
    assert [model.id for model in server.client().models.list()] == ["all-MiniLM-L6-v2", "gpt-test"]
    with pytest.raises(openai.NotFoundError) as error:
        server.client().chat.completions.create(model="gpt-none", messages=MESSAGES)
    assert error.value.code == "model_not_found"
    assert "sk-ours" not in server.log
    upstream.stop()


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
    assert upstream.asked[-1].headers["authorization"] == "Bearer bob"
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


def test_without_an_upstream_there_is_no_chat(start_server):
    response = start_server().http.post(PATH, json=body_for("Anybody?"))

    assert response.status_code == 404
