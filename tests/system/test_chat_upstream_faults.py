"""Upstreams that fail (faults F26 to F30): errors, silence, broken and malformed answers.

The client gets the upstream's error or one in OpenAI's shape. No partial answer is stored, and the
next request is answered normally.
"""

import json
import time
from collections.abc import Iterator

import openai
import pytest
from asking import wait_until
from chat_faults import begins_then, check_next_is_well, stalls
from chatting import ask, check_stream, events_of, status_of, text_of, told
from server_process import Server
from upstream import Upstream, answer_to, chunks, says

IDLE_S = 0.5


@pytest.fixture(scope="module")
def impatient(model_home, upstream, tmp_path_factory) -> Iterator[Server]:
    """A server whose upstream has half a second for everything."""
    config = tmp_path_factory.mktemp("chat") / "cacheproxy.toml"
    config.write_text(
        f'[upstreams.main]\nbase_url = "{upstream.url}"\n'
        f"first_byte_timeout_s = {IDLE_S}\nidle_timeout_s = {IDLE_S}\n"
    )
    server = Server(model_home, "memory://", "--drain-s", "0", "--config", str(config))
    yield server
    assert server.stop() == 0, server.log


async def breaks_off(exchange):
    exchange.break_off()


# F26


def test_429_is_passed_on_with_its_body_and_retry_after_and_is_not_repeated(chat, upstream):
    body = b'{"error": {"message": "slow down", "type": "rate_limit", "code": "rl"}}'
    upstream.plan.append(says(429, body, retry_after="7", x_ratelimit_remaining_requests="0"))
    asked = len(upstream)

    response = ask(chat, "F26")

    assert (response.status_code, response.content) == (429, body)
    assert response.headers["retry-after"] == "7"
    assert response.headers["x-ratelimit-remaining-requests"] == "0"
    assert "fwd-status=429" in status_of(response)
    assert len(upstream) == asked + 1
    check_next_is_well(chat, "F26")


def test_429_reaches_the_official_client_as_its_own_error(chat, upstream):
    upstream.plan.append(says(429, b'{"error": {"message": "slow down"}}', retry_after="1"))

    with pytest.raises(openai.RateLimitError, match="slow down"):
        chat.client().chat.completions.create(
            model="gpt-test", messages=[{"role": "user", "content": "F26 again"}], stream=True
        )


# F27


@pytest.mark.parametrize("status", [500, 502, 503])
def test_a_servers_error_is_passed_on_with_its_body(chat, upstream, status):
    body = b'{"error": {"message": "broken"}}'
    upstream.plan.append(says(status, body))

    response = ask(chat, f"F27 {status}")

    assert (response.status_code, response.content) == (status, body)
    check_next_is_well(chat, f"F27 {status}")


@pytest.mark.parametrize("streamed", [False, True])
def test_an_upstream_that_does_not_answer_is_a_504_in_time(impatient, upstream, streamed):
    upstream.plan.append(stalls)
    started = time.monotonic()

    response = ask(impatient, f"F27 {streamed}", stream=streamed)

    assert response.status_code == 504
    assert response.json()["error"]["code"] == "upstream_timeout"
    assert time.monotonic() - started < 10
    check_next_is_well(impatient, f"F27 {streamed}")


def test_an_upstream_that_is_away_is_a_502_and_then_let_alone(start_server):
    upstream = Upstream()
    server = start_server("--upstream", upstream.url)
    assert ask(server, "Here?").status_code == 200
    upstream.vanish()

    failures = [ask(server, f"Away {i}?") for i in range(8)]

    codes = [failure.json()["error"]["code"] for failure in failures]
    assert codes[0] == "upstream_connect"
    assert codes[-1] == "upstream_unavailable"
    assert failures[-1].status_code == 503
    assert int(failures[-1].headers["retry-after"]) >= 1
    assert server.metric("upstream_breaker_state", upstream="default") == 2
    assert server.metric("upstream_errors_total", kind="connect") >= 5
    assert "hit" in status_of(ask(server, "Here?"))
    upstream.stop()


def test_the_next_upstream_stands_in_for_one_that_fails(start_server, tmp_path):
    first, second = Upstream(), Upstream()
    config = tmp_path / "cacheproxy.toml"
    config.write_text(
        f'[upstreams.first]\nbase_url = "{first.url}"\n'
        f'[upstreams.second]\nbase_url = "{second.url}"\n'
    )
    server = start_server("--config", str(config))
    first.plan.append(says(500, b"{}"))

    answers = [ask(server, "One fails?")]
    first.vanish()
    answers += [ask(server, f"One is away {i}?") for i in range(8)]
    first_asked = len(first)
    answers.append(ask(server, "One is let alone?"))

    assert [answer.status_code for answer in answers] == [200] * 10
    assert sum(asked.judged_pair is None for asked in second.asked) == 10
    assert len(first) == first_asked
    second.always = says(503, b'{"error": {"message": "busy"}}')
    assert ask(server, "Both fail?").json() == {"error": {"message": "busy"}}
    first.stop()
    second.stop()


def test_a_kept_connection_that_the_upstream_closed_costs_no_request(chat, upstream):
    async def closes(exchange):
        exchange.writer.close()

    ask(chat, "Makes a connection")
    upstream.plan.append(closes)

    assert text_of(ask(chat, "On a closed connection")) == answer_to("On a closed connection")


# F28


def test_a_stream_that_breaks_off_ends_in_an_error_event_and_is_not_stored(chat, upstream):
    upstream.plan.append(begins_then(breaks_off))

    response = ask(chat, "F28", stream=True)

    *begun, last = events_of(response.content)
    assert response.status_code == 200
    assert told(begun) == "You asked:"
    assert last["error"]["code"] == "upstream_truncated"
    assert "[DONE]" not in begun
    check_next_is_well(chat, "F28")


def test_the_official_client_raises_when_a_stream_breaks_off(chat, upstream):
    upstream.plan.append(begins_then(breaks_off))
    messages = [{"role": "user", "content": "F28, official"}]

    stream = chat.client().chat.completions.create(model="gpt-test", messages=messages, stream=True)
    with pytest.raises(openai.APIError, match="broke off"):
        list(stream)


def test_a_stream_without_its_last_event_is_not_stored(chat, upstream):
    async def ends_early(exchange):
        await exchange.begin_stream()
        for chunk in chunks(exchange.asked):
            await exchange.event(chunk)
        await exchange.end_stream(done=False)

    upstream.plan.append(ends_early)

    last = events_of(ask(chat, "F28, no end", stream=True).content)[-1]

    assert last["error"]["code"] == "upstream_truncated"
    check_next_is_well(chat, "F28, no end")


def test_a_plain_answer_that_breaks_off_is_a_502(chat, upstream):
    async def half(exchange):
        await exchange.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n{"
        )
        exchange.break_off()

    upstream.plan.append(half)

    response = ask(chat, "F28, plain")

    assert response.status_code == 502
    assert response.json()["error"]["code"] == "upstream_truncated"
    check_next_is_well(chat, "F28, plain")


def test_a_break_before_the_first_event_is_a_502_and_no_stream(chat, upstream):
    async def begins_only(exchange):
        await exchange.begin_stream()
        await exchange.chunk(b'data: {"half"')
        exchange.break_off()

    upstream.plan.append(begins_only)

    response = ask(chat, "F28, at once", stream=True)

    assert response.status_code == 502
    assert response.json()["error"]["code"] == "upstream_truncated"


# F29


def test_a_stream_that_pauses_too_long_is_ended_with_an_error_event(impatient, upstream):
    upstream.plan.append(begins_then(stalls))
    left = upstream.left

    last = events_of(ask(impatient, "F29", stream=True).content)[-1]

    assert last["error"]["code"] == "upstream_timeout"
    wait_until(lambda: upstream.left == left + 1)
    check_next_is_well(impatient, "F29")


def test_a_stream_that_drips_byte_by_byte_is_whole_and_stored(impatient, upstream):
    async def drips(exchange):
        await exchange.begin_stream()
        events = [b"data: " + json.dumps(chunk).encode() for chunk in chunks(exchange.asked)]
        for byte in b"\r\n\r\n".join([b": a comment", *events, b"data: [DONE]", b""]):
            await exchange.chunk(bytes([byte]))
        await exchange.end_stream(done=False)

    upstream.plan.append(drips)

    response = ask(impatient, "F29, in drips", stream=True)

    assert answer_to("F29, in drips").split()[-1] in response.text
    hit = ask(impatient, "F29, in drips", stream=True)
    assert "hit" in status_of(hit)
    assert told(check_stream(hit.content, with_usage=False)) == answer_to("F29, in drips")


# F30


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b'{"id": "x", "choices": [', "application/json"),
        (b"<html>Gateway</html>", "text/html"),
        (b"", "application/json"),
        (b"[]", "application/json"),
        (b'{"error": {"message": "under 200"}}', "application/json"),
        (b'{"choices": "none"}', "application/json"),
        (b'{"id": "\xff"}', "application/json"),
    ],
    ids=["truncated", "html", "empty", "list", "error", "no choices", "not utf-8"],
)
def test_what_is_no_answer_is_a_502_and_never_stored(chat, upstream, body, content_type):
    upstream.plan.append(says(200, body, content_type))

    response = ask(chat, f"F30 {body!r}")

    assert response.status_code == 502
    assert response.json()["error"]["code"] == "upstream_malformed"
    check_next_is_well(chat, f"F30 {body!r}")


def test_a_stream_that_is_none_is_a_502(chat, upstream):
    upstream.plan.append(says(200, b'{"choices": []}'))

    response = ask(chat, "F30, asked for a stream", stream=True)

    assert response.json()["error"]["code"] == "upstream_malformed"


def test_a_malformed_event_ends_the_stream_with_an_error_event(chat, upstream):
    async def stammers(exchange):
        await exchange.chunk(b"data: {not json}\n\n")

    upstream.plan.append(begins_then(stammers))

    last = events_of(ask(chat, "F30, within", stream=True).content)[-1]

    assert last["error"]["code"] == "upstream_malformed"
    check_next_is_well(chat, "F30, within")


def test_an_error_event_of_the_upstream_is_passed_on_and_not_stored(chat, upstream):
    async def complains(exchange):
        await exchange.event({"error": {"message": "overloaded"}})
        await exchange.end_stream()

    upstream.plan.append(begins_then(complains))

    events = events_of(ask(chat, "F30, complaint", stream=True).content)

    assert events[-2:] == [{"error": {"message": "overloaded"}}, "[DONE]"]
    check_next_is_well(chat, "F30, complaint")
