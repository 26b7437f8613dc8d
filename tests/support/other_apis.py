"""What the scripted upstream answers in the APIs beside chat completions, whole and as events.

The forms follow the documentation of OpenAI's Responses API and legacy completions, and of
Anthropic's Messages API.
"""

from typing import Any

CREATED = 1_700_000_000


def _text(asked: Any) -> str:
    return f"You asked: {asked.question}"


def _pieces(asked: Any) -> list[str]:
    first, *more = _text(asked).split(" ")
    return [first, *(" " + word for word in more)]


def response(asked: Any) -> dict[str, Any]:
    """A `response` object of OpenAI's Responses API."""
    part = {"type": "output_text", "text": _text(asked), "annotations": [], "logprobs": []}
    item = {
        "id": f"msg_{asked.number}",
        "type": "message",
        "status": "completed",
        "role": "assistant",
        "content": [part],
    }
    return {
        "id": f"resp_{asked.number}",
        "object": "response",
        "created_at": CREATED,
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "instructions": asked.body.get("instructions"),
        "model": asked.body["model"],
        "output": [item],
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "usage": {
            "input_tokens": 3,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": 4,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 7,
        },
    }


def response_events(asked: Any) -> list[dict[str, Any]]:
    whole = response(asked)
    (item,) = whole["output"]
    (part,) = item["content"]
    begun = {**whole, "status": "in_progress", "output": [], "usage": None}
    place = {"item_id": item["id"], "output_index": 0, "content_index": 0}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
        {
            "type": "response.output_item.added",
            "output_index": 0,
            "item": {**item, "status": "in_progress", "content": []},
        },
        {"type": "response.content_part.added", **place, "part": {**part, "text": ""}},
        *(
            {"type": "response.output_text.delta", **place, "delta": piece, "logprobs": []}
            for piece in _pieces(asked)
        ),
        {"type": "response.output_text.done", **place, "text": part["text"], "logprobs": []},
        {"type": "response.content_part.done", **place, "part": part},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": whole},
    ]
    return [{**event, "sequence_number": number} for number, event in enumerate(events)]


def message(asked: Any) -> dict[str, Any]:
    """A `message` object of Anthropic's Messages API."""
    return {
        "id": f"msg_{asked.number}",
        "type": "message",
        "role": "assistant",
        "model": asked.body["model"],
        "content": [{"type": "text", "text": _text(asked)}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 3, "output_tokens": 4},
    }


def message_events(asked: Any) -> list[dict[str, Any]]:
    whole = message(asked)
    begun = {
        **whole,
        "content": [],
        "stop_reason": None,
        "usage": {"input_tokens": 3, "output_tokens": 1},
    }
    return [
        {"type": "message_start", "message": begun},
        {
            "type": "content_block_start",
            "index": 0,
            "content_block": {"type": "text", "text": ""},
        },
        {"type": "ping"},
        *(
            {
                "type": "content_block_delta",
                "index": 0,
                "delta": {"type": "text_delta", "text": piece},
            }
            for piece in _pieces(asked)
        ),
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": 4},
        },
        {"type": "message_stop"},
    ]


def legacy(asked: Any) -> dict[str, Any]:
    """A `text_completion` object of OpenAI's legacy completions."""
    return {
        "id": f"cmpl-{asked.number}",
        "object": "text_completion",
        "created": CREATED,
        "model": asked.body["model"],
        "choices": [{"text": _text(asked), "index": 0, "logprobs": None, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
    }


def legacy_events(asked: Any) -> list[dict[str, Any]]:
    whole = legacy(asked)
    usage = whole.pop("usage")
    (choice,) = whole["choices"]
    told = [
        {**whole, "choices": [{**choice, "text": piece, "finish_reason": None}]}
        for piece in _pieces(asked)
    ]
    told.append({**whole, "choices": [{**choice, "text": ""}]})
    if (asked.body.get("stream_options") or {}).get("include_usage"):
        told.append({**whole, "choices": [], "usage": usage})
    return told


OTHER_APIS = {
    "/responses": (response, response_events),
    "/messages": (message, message_events),
    "/completions": (legacy, legacy_events),
}
