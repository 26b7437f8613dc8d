"""An upstream's answers in each API for completions: whole, or spoiled in the ways that happen.

`ENDS` names the ways. A whole answer may be kept; one that the model was stopped in, one that calls
tools, and one that never came to its end may not.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from types import SimpleNamespace
from typing import Any

from other_apis import OTHER_APIS
from upstream import chunks, completion

from cacheproxy.errors import UpstreamFailed
from cacheproxy.routes.dialects.chunks import DONE
from cacheproxy.routes.dialects.sse import data_event, named_event
from cacheproxy.upstreams.head import Head

ENDS = (
    "whole",
    "cut short",  # by the model's limit of tokens
    "tools",
    "broken",  # the connection, before the last event
    "error",  # a status
    "error event",
    "refused",
    "garbage",
    "no end",  # the last event is missing, and the connection ends well
)
"""How an answer may end."""

Value = dict[str, Any]


class Api:
    """One API: what to ask, and how an upstream answers.

    Attributes:
        ask: returns the fields of a request for a question.
        whole: returns the answer object.
        events: returns the events of its stream.
        cut_short, tools: change an answer object into one that may not be kept.
    """

    def __init__(
        self,
        ask: Callable[[str], Value],
        whole: Callable[[Any], Value],
        events: Callable[[Any], list[Value]],
        *,
        cut_short: Callable[[Value], None],
        tools: Callable[[Value], None],
    ) -> None:
        self.ask, self.whole, self.events = ask, whole, events
        self._changes = {"cut short": cut_short, "tools": tools}

    def body(self, asked: Any, end: str) -> bytes:
        """Return a whole answer."""
        if end == "garbage":
            return b"{"
        answer = self.whole(asked)
        if change := self._changes.get(end):
            change(answer)
        elif end == "error event":
            answer["error"] = _ERROR
        return json.dumps(answer).encode()

    def stream(self, asked: Any, end: str) -> Iterator[bytes]:
        """Yield the events of a streamed answer, up to where the connection ends."""
        events = self.events(asked)
        if change := self._changes.get(end):
            for event in events:
                change(event)
                change(event.get("response", {}))
                change(event.get("message", {}))
        encoded = [named_event(one) if "type" in one else data_event(one) for one in events]
        if "type" not in events[-1]:
            encoded.append(DONE)
        if end in ("no end", "broken"):
            del encoded[-1]
        if end == "garbage":
            encoded.insert(-1, b"data: {\n\n")
        if end == "error event":
            error = {"type": "error", "error": _ERROR} if "type" in events[-1] else _WRAPPED
            encoded.insert(-1, (named_event if "type" in error else data_event)(error))
        yield from encoded


_ERROR = {"type": "overloaded_error", "message": "overloaded"}
_WRAPPED = {"error": _ERROR}


def _chat_cut(answer: Value) -> None:
    for choice in answer.get("choices", ()):
        if choice["finish_reason"]:
            choice["finish_reason"] = "length"


def _chat_tools(answer: Value) -> None:
    call = {"index": 0, "id": "1", "type": "function", "function": {"name": "f", "arguments": ""}}
    for choice in answer.get("choices", ()):
        if choice["finish_reason"]:
            told = choice["message"] if "message" in choice else choice["delta"]
            told["tool_calls"] = [call]


def _response_cut(answer: Value) -> None:
    if answer.get("status") == "completed" and "output" in answer:
        answer["status"] = "incomplete"
        answer["incomplete_details"] = {"reason": "max_output_tokens"}
    if answer.get("type") == "response.completed":
        answer["type"] = "response.incomplete"


def _response_tools(answer: Value) -> None:
    if answer.get("status") == "completed" and "output" in answer:
        call = {"type": "function_call", "id": "f", "call_id": "1", "name": "f", "arguments": "{}"}
        answer["output"].append(call)


def _message_cut(answer: Value) -> None:
    for told in (answer, answer.get("delta", {})):
        if told.get("stop_reason"):
            told["stop_reason"] = "max_tokens"


def _message_tools(answer: Value) -> None:
    for told in (answer, answer.get("delta", {})):
        if told.get("stop_reason"):
            told["stop_reason"] = "tool_use"
    if answer.get("role") == "assistant" and answer["content"]:
        answer["content"].append({"type": "tool_use", "id": "t", "name": "f", "input": {}})


def _in_messages(question: str) -> Value:
    return {"model": "m", "messages": [{"role": "user", "content": question}]}


def _several(answer: Value) -> None:
    """Legacy completions call no tools; several answers are what is not kept of them."""
    if answer.get("choices"):
        answer["choices"].append({**answer["choices"][0], "index": 1})


APIS = {
    "chat": Api(_in_messages, completion, chunks, cut_short=_chat_cut, tools=_chat_tools),
    "responses": Api(
        lambda question: {"model": "m", "input": question},
        *OTHER_APIS["/responses"],
        cut_short=_response_cut,
        tools=_response_tools,
    ),
    "messages": Api(
        lambda question: {**_in_messages(question), "max_tokens": 100},
        *OTHER_APIS["/messages"],
        cut_short=_message_cut,
        tools=_message_tools,
    ),
    "completions": Api(
        lambda question: {"model": "m", "prompt": question},
        *OTHER_APIS["/completions"],
        cut_short=_chat_cut,
        tools=_several,
    ),
}
"""By the name of the dialect."""


class SpoiledAnswer:
    """An upstream's response, with the interface of `UpstreamResponse`."""

    def __init__(self, api: Api, body: Value, question: str, number: int, end: str) -> None:
        self._api, self._end = api, end
        self._asked = SimpleNamespace(question=question, number=number, body=body)
        self.is_stream = body.get("stream") is True
        kind = b"text/event-stream" if self.is_stream else b"application/json"
        self.head = Head(503 if end == "error" else 200, kind, [], "u")

    @property
    def is_whole(self) -> bool:
        """Whether it may be kept."""
        return self._end == "whole" or (self._end == "no end" and not self.is_stream)

    def close(self) -> None:
        pass

    async def read(self) -> bytes:
        await asyncio.sleep(0)
        if self._end == "broken":
            raise UpstreamFailed("broken", code="upstream_truncated")
        return self._api.body(self._asked, self._end)

    async def chunks(self) -> AsyncIterator[bytes]:
        for event in self._api.stream(self._asked, self._end):
            yield event[:9]  # in two pieces, so that each event has to be put together
            await asyncio.sleep(0)
            yield event[9:]
        if self._end == "broken":
            raise UpstreamFailed("broken", code="upstream_truncated")

    def all_bytes(self) -> bytes:
        """Return the body, as far as it comes."""
        if self.is_stream and self.head.status == 200:
            return b"".join(self._api.stream(self._asked, self._end))
        return self._api.body(self._asked, self._end)

    def whole_stream(self) -> bytes:
        """Return the events that lead to this answer, if it comes to its end."""
        return b"".join(self._api.stream(self._asked, "whole"))
