"""`POST /v1/chat/completions`, described: what of OpenAI's request and answer matters here.

The proxy checks `model` and `cache` alone. All other fields go to the upstream as they came, and
the upstream judges them; their types here are OpenAI's, for readers and client generators.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from cacheproxy.api.callers import NAMESPACE
from cacheproxy.api.control import CONTROL_HEADERS
from cacheproxy.api.litellm_control import CacheField
from cacheproxy.api.operation import Content, Operation, Parameter, Reply, Status
from cacheproxy.api.presentation import CACHE_HEADERS
from cacheproxy.api.response import REQUEST_ID, refusals
from cacheproxy.routes.dialects.request import NamedModel

ENTRY = Parameter(
    "X-Cacheproxy-Entry",
    str,
    "Of a hit: the id by which it can be reported as wrong (`POST /v1/cache/report`).",
)


class ChatCompletionRequest(NamedModel):
    """OpenAI's create-chat-completion request. Fields that are not listed go to the upstream."""

    messages: Annotated[
        Any,
        Meta(
            description="The conversation. Only the last user message may differ between a "
            "request and a semantic hit.",
            extra_json_schema={"type": "array", "items": {"type": "object"}, "minItems": 1},
        ),
    ]
    stream: Annotated[
        Any,
        Meta(
            description="Whether the answer is wanted as server-sent events.",
            extra_json_schema={"type": ["boolean", "null"]},
        ),
    ] = False
    stream_options: Annotated[
        Any,
        Meta(
            description="`include_usage` ends a stream with the tokens used.",
            extra_json_schema={
                "type": ["object", "null"],
                "properties": {"include_usage": {"type": "boolean"}},
            },
        ),
    ] = None
    temperature: Annotated[
        Any,
        Meta(
            description="Requests above the setting `chat.max_temperature` are not cached. "
            "OpenAI's default is 1.",
            extra_json_schema={"type": ["number", "null"]},
        ),
    ] = None
    n: Annotated[
        Any,
        Meta(
            description="Requests for several choices are not cached.",
            extra_json_schema={"type": ["integer", "null"]},
        ),
    ] = None
    tools: Annotated[
        Any,
        Meta(
            description="Requests with tools are cached only where `chat.cache_tools` or "
            "`namespace_cache_tools` asks for it, and only at temperature 0.",
            extra_json_schema={"type": ["array", "null"], "items": {"type": "object"}},
        ),
    ] = None
    cache: Annotated[
        CacheField | None, Meta(description="LiteLLM's cache controls, checked by the proxy.")
    ] = None


class ChatMessage(msgspec.Struct):
    """The upstream's message."""

    role: str
    content: str | None = None


class ChatChoice(msgspec.Struct):
    """One of the upstream's choices."""

    index: int
    message: ChatMessage
    finish_reason: str | None = None


class ChatUsage(msgspec.Struct):
    """The tokens that the upstream counted when it computed the answer."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatCompletion(msgspec.Struct):
    """OpenAI's completion, byte for byte as the upstream wrote it, further fields included."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: ChatUsage | None = None


_EXAMPLE = ChatCompletion(
    "chatcmpl-1",
    "chat.completion",
    1_700_000_000,
    "gpt-4o-mini",
    [ChatChoice(0, ChatMessage("assistant", "Many clients that miss at once."), "stop")],
    ChatUsage(13, 7, 20),
)

UPSTREAM_REPLIES: dict[Status, Reply] = {
    **refusals(400, 401, 404, 408, 413, 415, 500, 502, 503, 504),
    "default": Reply(
        "Any other answer of the upstream, passed on as it is. An upstream's error has the "
        "upstream's shape, also under the statuses above.",
        headers=tuple(each for each in CACHE_HEADERS if each.is_required),
    ),
}
"""Answers of every completions route beside 200."""

CREATE_CHAT_COMPLETION = Operation(
    method="POST",
    path="/v1/chat/completions",
    id="createChatCompletion",
    tag="Chat",
    summary="Complete a chat, as OpenAI does",
    description="""
    A completion out of the cache, or else the upstream's. Served only if an upstream for chat is
    configured. An upstream's answer is passed on as it comes, whatever its status.
    """,
    headers=(NAMESPACE, *CONTROL_HEADERS, REQUEST_ID),
    body=Content(
        ChatCompletionRequest,
        {
            "A question": {
                "model": "gpt-4o-mini",
                "temperature": 0,
                "messages": [{"role": "user", "content": "What is a cache stampede?"}],
            },
            "As a stream, cached for an hour": {
                "model": "gpt-4o-mini",
                "temperature": 0,
                "messages": [{"role": "user", "content": "What is a cache stampede?"}],
                "stream": True,
                "cache": {"ttl": 3600},
            },
        },
    ),
    replies={
        200: Reply(
            "The completion; with `stream`, as chunks in server-sent events that end with "
            "`data: [DONE]`. If the upstream fails after a stream has begun, the stream's last "
            "event is an error object.",
            (
                Content(ChatCompletion, {"A completion": msgspec.to_builtins(_EXAMPLE)}),
                Content(Any, media_type="text/event-stream"),
            ),
            (*CACHE_HEADERS, ENTRY),
        ),
        **UPSTREAM_REPLIES,
    },
)
