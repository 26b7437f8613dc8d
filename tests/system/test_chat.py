"""Chat completions through the real server: hits, streams, and what is passed on untouched."""

import json
import subprocess
import threading

import openai
import pytest
from asking import wait_until
from chatting import MESSAGES, PATH, ask, body_for, check_stream, status_of, stream, text_of, told
from upstream import Upstream, answer_to, chunks, says


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

    assert upstream.last.raw == raw


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
    sent = upstream.last.headers
    assert sent["authorization"] == "Bearer sk-ours"
    assert sent["openai-project"] == "p"
    assert not {"cookie", "x-api-key", "te"} & sent.keys()
    assert [model.id for model in server.client().models.list()] == ["all-MiniLM-L6-v2", "gpt-test"]
    with pytest.raises(openai.NotFoundError) as error:
        server.client().chat.completions.create(model="gpt-none", messages=MESSAGES)
    assert error.value.code == "model_not_found"
    assert "sk-ours" not in server.log
    upstream.stop()


def test_without_an_upstream_there_is_no_chat(start_server):
    response = start_server().http.post(PATH, json=body_for("Anybody?"))

    assert response.status_code == 404
