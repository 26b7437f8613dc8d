"""A complete answer that may be kept, whatever API it came from.

Only what is complete and would serve everybody who asks the same is kept: one answer that came to
its end by itself, with a text and nothing that calls for action. Calls of tools are kept only where
the operator asks for it (`chat.cache_tools`).
"""

from dataclasses import dataclass
from typing import Any

import msgspec

from cacheproxy.errors import UpstreamFailed

_DECODER = msgspec.json.Decoder(dict[str, Any])


@dataclass(frozen=True, slots=True)
class Completion:
    """An answer that may be kept.

    Attributes:
        body: the API's answer object, as JSON.
        text: the answer's text.
        prompt_tokens, completion_tokens: as the upstream counted them; 0 if it did not say.
        has_usage: whether it said.
        calls_tools: whether it calls tools; its text is then empty.
    """

    body: bytes
    text: str
    prompt_tokens: int
    completion_tokens: int
    has_usage: bool
    calls_tools: bool = False


def completion_of(
    body: bytes, text: Any, usage: Any, names: tuple[str, str] = ("input_tokens", "output_tokens")
) -> Completion | None:
    """Return a completion; None if `text` is none. `names` are those of the counts in `usage`."""
    if not isinstance(text, str) or not text:
        return None
    return Completion(body, text, *_counts(usage, names))


def tool_calls_of(body: bytes, calls: Any, usage: Any, names: tuple[str, str]) -> Completion | None:
    """Return a completion of calls of functions; None if `calls` is no list of whole ones."""
    if not isinstance(calls, list) or not calls:
        return None
    for call in calls:
        match call:
            case {"id": str(), "function": {"name": str(), "arguments": str()}}:
                continue
        return None
    return Completion(body, "", *_counts(usage, names), calls_tools=True)


def read_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object of a whole answer with status 200.

    Raises:
        UpstreamFailed: it is none, or an error, whatever its status says.
    """
    try:
        answer = _DECODER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise malformed("its answer is not a JSON object") from None
    if answer.get("error"):
        raise malformed("its answer is an error under the status 200")
    return answer


def malformed(reason: str) -> UpstreamFailed:
    """Return the error for an answer that is none."""
    return UpstreamFailed(f"the upstream failed: {reason}", code="upstream_malformed")


def _counts(usage: Any, names: tuple[str, str]) -> tuple[int, int, bool]:
    prompt, completion = (_count(usage, name) for name in names)
    return prompt or 0, completion or 0, prompt is not None and completion is not None


def _count(usage: Any, name: str) -> int | None:
    count = usage.get(name) if isinstance(usage, dict) else None
    is_count = isinstance(count, int) and not isinstance(count, bool) and 0 <= count < 2**32
    return count if is_count else None
