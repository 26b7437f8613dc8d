"""Asking a chat server under test, and reading its streams event by event."""

import json
from typing import Any

import httpx

PATH = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "What is a vector index?"}]


def body_for(question: str, **more: Any) -> dict[str, Any]:
    return {"model": "gpt-test", "messages": [{"role": "user", "content": question}], **more}


def ask(server, question: str, headers: dict[str, str] | None = None, **more: Any):
    return server.http.post(PATH, json=body_for(question, **more), headers=headers or {})


def stream(server, question: str, **more: Any):
    response = ask(server, question, stream=True, **more)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    return response


def status_of(response: httpx.Response) -> str:
    return response.headers["cache-status"]


def text_of(response: httpx.Response) -> str:
    assert response.status_code == 200, response.text
    return response.json()["choices"][0]["message"]["content"]


def events_of(body: bytes) -> list[Any]:
    """Return what a stream told: JSON values, and "[DONE]" at its end, each event well-formed."""
    assert body.endswith(b"\n\n"), body[-50:]
    events = []
    for event in body.decode().split("\n\n")[:-1]:
        assert event.startswith("data: "), event
        assert "\n" not in event
        data = event.removeprefix("data: ")
        events.append(data if data == "[DONE]" else json.loads(data))
    return events


def told(events: list[Any]) -> str:
    """Return the text that a stream's chunks tell."""
    choices = [choice for event in events if event != "[DONE]" for choice in event["choices"]]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


def check_stream(body: bytes, *, with_usage: bool) -> list[Any]:
    """Return a stream's events, checked one by one to be OpenAI's."""
    events = events_of(body)
    *chunks, done = events
    assert done == "[DONE]"
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert all(chunk["object"] == "chat.completion.chunk" for chunk in chunks)
    assert all(isinstance(chunk["created"], int) and chunk["model"] for chunk in chunks)
    if with_usage:
        *chunks, last = chunks
        assert last["choices"] == []
        assert last["usage"]["total_tokens"] > 0
    assert all(not chunk.get("usage") for chunk in chunks)
    assert all(len(chunk["choices"]) == 1 for chunk in chunks)
    assert all(chunk["choices"][0]["index"] == 0 for chunk in chunks)
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks]
    assert reasons == [None] * (len(chunks) - 1) + ["stop"]
    return events
