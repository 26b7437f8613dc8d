"""The completions routes beside chat, described: Responses, Messages, and legacy completions.

As for chat, the proxy checks `model` and `cache` alone; the upstream judges all other fields.
"""

from typing import Annotated, Any

from msgspec import Meta

from cacheproxy.api.callers import NAMESPACE
from cacheproxy.api.control import CONTROL_HEADERS
from cacheproxy.api.dialects.chat_schema import (
    CREATE_CHAT_COMPLETION,
    ENTRY,
    UPSTREAM_REPLIES,
)
from cacheproxy.api.litellm_control import CacheField
from cacheproxy.api.operation import Content, Operation, Reply
from cacheproxy.api.presentation import CACHE_HEADERS
from cacheproxy.api.response import REQUEST_ID
from cacheproxy.routes.dialects.request import NamedModel


class UpstreamRequest(NamedModel):
    """A request in the provider's own form. Fields that are not listed go to the upstream."""

    stream: Annotated[
        Any,
        Meta(
            description="Whether the answer is wanted as server-sent events.",
            extra_json_schema={"type": ["boolean", "null"]},
        ),
    ] = False
    cache: Annotated[
        CacheField | None, Meta(description="LiteLLM's cache controls, checked by the proxy.")
    ] = None


def _operation(
    path: str, operation_id: str, tag: str, summary: str, description: str, example: dict[str, Any]
) -> Operation:
    return Operation(
        method="POST",
        path=path,
        id=operation_id,
        tag=tag,
        summary=summary,
        description=description,
        headers=(NAMESPACE, *CONTROL_HEADERS, REQUEST_ID),
        body=Content(UpstreamRequest, {"A question": example}),
        replies={
            200: Reply(
                "The provider's answer object; with `stream`, its server-sent events.",
                (Content(dict[str, Any]), Content(Any, media_type="text/event-stream")),
                (*CACHE_HEADERS, ENTRY),
            ),
            **UPSTREAM_REPLIES,
        },
    )


CREATE_RESPONSE = _operation(
    "/v1/responses",
    "createResponse",
    "Responses",
    "Create a response, as OpenAI does",
    """
    A stateless response out of the cache, or else the upstream's. Requests with `store: true`,
    `previous_response_id`, `conversation`, `prompt`, `background` or tools bypass the cache.
    """,
    {"model": "gpt-4o-mini", "temperature": 0, "input": "What is a cache stampede?"},
)

CREATE_MESSAGE = _operation(
    "/v1/messages",
    "createMessage",
    "Messages",
    "Create a message, as Anthropic does",
    """
    A message out of the cache, or else the upstream's. The caller's key may come in `X-Api-Key`.
    Requests with tools, or with content that is not text, bypass the cache.
    """,
    {
        "model": "claude-sonnet",
        "max_tokens": 256,
        "messages": [{"role": "user", "content": "What is a cache stampede?"}],
    },
)

CREATE_COMPLETION = _operation(
    "/v1/completions",
    "createCompletion",
    "Completions",
    "Complete a prompt, as OpenAI's legacy API does",
    "A completion of one text prompt out of the cache, or else the upstream's.",
    {"model": "gpt-3.5-turbo-instruct", "temperature": 0, "prompt": "A cache stampede is"},
)

OPERATIONS = {
    "chat": CREATE_CHAT_COMPLETION,
    "responses": CREATE_RESPONSE,
    "messages": CREATE_MESSAGE,
    "completions": CREATE_COMPLETION,
}
"""The operation of each dialect, by its name."""
