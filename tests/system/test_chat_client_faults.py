"""Clients that leave, read slowly, or wait together for a call that fails (faults F31 to F33).

No partial answer is stored, no other client is harmed, and the next request is answered normally.
"""

import json
import socket
import threading
import time

import httpx
import pytest
from asking import wait_until
from chat_faults import begins_then, check_next_is_well, stalls
from chatting import PATH, ask, body_for, check_stream, status_of, text_of, told
from upstream import answer_to, chunks

# F31


@pytest.mark.parametrize("streamed", [False, True])
def test_a_client_that_leaves_takes_its_upstream_call_along(chat, upstream, streamed):
    upstream.plan.append(begins_then(stalls) if streamed else stalls)
    left, question = upstream.left, f"F31 {streamed}"

    with (
        httpx.Client(base_url=chat.url, timeout=0.5) as client,
        pytest.raises(httpx.ReadTimeout),
    ):
        client.post(PATH, json=body_for(question, stream=streamed))

    wait_until(lambda: upstream.left == left + 1)
    wait_until(lambda: chat.metric("chat_waiting") == 0)
    check_next_is_well(chat, question)


def test_a_client_that_leaves_takes_nothing_from_others(chat, upstream):
    gate = upstream.gate()

    async def waits(exchange):
        await gate.passed()
        for chunk in chunks(exchange.asked)[3:]:
            await exchange.event(chunk)
        await exchange.end_stream()

    upstream.plan.append(begins_then(waits))
    asked, body = len(upstream), body_for("F31, shared", stream=True)
    with (
        httpx.stream("POST", f"{chat.url}{PATH}", json=body, timeout=20) as leader,
        httpx.stream("POST", f"{chat.url}{PATH}", json=body, timeout=20) as follower,
    ):
        parts = follower.iter_raw()
        first = next(parts)
        leader.close()
        gate.open()
        whole = first + b"".join(parts)

    assert told(check_stream(whole, with_usage=False)) == answer_to("F31, shared")
    assert len(upstream) == asked + 1
    assert "hit" in status_of(ask(chat, "F31, shared", stream=True))


# F32


def test_a_slow_reader_holds_its_upstream_back_and_memory_is_bounded(chat, upstream):
    sent = []

    async def floods(exchange):
        chunk = chunks(exchange.asked, text="x" * 100_000)[1]
        await exchange.begin_stream()
        for _ in range(1_000):
            await exchange.event(chunk)
            sent.append(1)
        await exchange.end_stream()

    upstream.plan.append(floods)
    before = _memory(chat)
    host, port = chat.url.removeprefix("http://").split(":")
    body = json.dumps(body_for("F32", stream=True)).encode()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        client.connect((host, int(port)))
        client.sendall(
            f"POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\n\r\n".encode()
            + body
        )
        # All buffers on the way are full once the upstream gets nothing more off.
        wait_until(lambda: len(sent) > 5 and _is_still(sent))
        assert len(sent) < 500
        assert _memory(chat) - before < 50e6
        assert text_of(ask(chat, "F32, another")) == answer_to("F32, another")


def _is_still(sent):
    before = len(sent)
    time.sleep(0.3)
    return len(sent) == before


def _memory(server):
    return sum(
        float(line.split()[1])
        for line in server.http.get("/metrics").text.splitlines()
        if line.startswith("process_resident_memory_bytes")
    )


# F33


def test_waiters_of_a_call_that_fails_ask_once_more_together(chat, upstream):
    gate = upstream.gate()

    async def fails(exchange):
        await gate.passed()
        exchange.break_off()

    upstream.plan.extend([fails, fails])  # the second for the repetition on a new connection
    asked, answers = len(upstream), []

    def wait():
        answers.append(ask(chat, "F33"))

    threads = [threading.Thread(target=wait) for _ in range(8)]
    for thread in threads:
        thread.start()
    wait_until(lambda: chat.metric("chat_waiting") >= 8)
    gate.open()
    for thread in threads:
        thread.join(20)

    statuses = sorted(answer.status_code for answer in answers)
    assert statuses == [200] * 7 + [502]
    assert len(upstream) <= asked + 3


def test_a_repeated_failure_reaches_every_waiter_as_its_own(chat, upstream):
    gate = upstream.gate()

    async def fails(exchange):
        await gate.passed()
        await exchange.answer(500, b'{"error": {"message": "broken"}}')

    upstream.always = fails
    asked, answers = len(upstream), []
    threads = [
        threading.Thread(target=lambda: answers.append(ask(chat, "F33, for good")))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    wait_until(lambda: chat.metric("chat_waiting") >= 8)
    gate.open()
    for thread in threads:
        thread.join(20)

    assert [answer.status_code for answer in answers] == [500] * 8
    assert len(upstream) == asked + 2
