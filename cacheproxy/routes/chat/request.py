"""A chat request, parsed as far as the cache needs: what its answer depends on, and what not.

Two requests are the same if everything that may change the answer is the same: model, messages,
sampling, formats, and every field that is not known here, `user` included. How the answer is sent
(`stream`, `stream_options`) and what is asked of the cache (`cache`) do not count. A pure core.
"""

import hashlib
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta

from cacheproxy.errors import BadRequest
from cacheproxy.keys import encode_fields
from cacheproxy.routes.chat.signature import signature_of
from cacheproxy.validation import refusal

Form = Literal["plain", "stream"]
Bypass = Literal["tools", "media", "temperature", "n", "store", "search", "shape"]

_DECODER = msgspec.json.Decoder(dict[str, Any])
_ENCODER = msgspec.json.Encoder(order="deterministic")

_NOT_IN_KEY = frozenset(("stream", "stream_options", "cache"))

_DEFAULT_TEMPERATURE = 1.0
"""OpenAI's, of a request that names none."""


class NamedModel(msgspec.Struct, kw_only=True):
    """What the proxy itself demands of a request for a completion."""

    model: Annotated[
        str,
        Meta(min_length=1, description="A model that one of the upstreams has."),
    ]


class UserTurn(NamedTuple):
    """A request divided into its last user turn and all the rest.

    Attributes:
        question: the text of the last user turn.
        context: 64 hex digits that are equal where the rest is, and the question's signature.
    """

    question: str
    context: str


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One request.

    Attributes:
        model: the model's name.
        form: whether the answer is wanted whole or as a stream.
        wants_usage: whether a stream is to end with the tokens used.
        bypass: why the tiers take no part, or None.
        body: what is sent upstream: the client's bytes, without a `cache` field.
        cache: LiteLLM's `cache` field, or nothing.
        fields: all of the body but `cache`.
    """

    model: str
    form: Form
    wants_usage: bool
    bypass: Bypass | None
    body: bytes
    cache: dict[str, Any]
    fields: dict[str, Any]

    def canonical(self) -> str:
        """Return what the answer depends on, the same for the same requests."""
        return _canonical(self.fields)

    def plain_body(self) -> bytes:
        """Return the body that asks for the same answer, whole."""
        return msgspec.json.encode(
            {k: v for k, v in self.fields.items() if k not in ("stream", "stream_options")}
        )

    def user_turn(self, scope: str) -> UserTurn | None:
        """Return the last user turn apart from the rest; None if the last message is none.

        `scope` is what else has to be the same.
        """
        *earlier, last = self.fields["messages"]
        text = _text_of(last.get("content"))
        if last.get("role") != "user" or text is None or not text.strip():
            return None
        rest = {**self.fields, "messages": [*earlier, {**last, "content": None}]}
        encoded = encode_fields(scope, _canonical(rest), signature_of(text))
        return UserTurn(text, hashlib.sha256(encoded).hexdigest())


def parse_chat(body: bytes, *, max_temperature: float) -> ChatRequest:
    """Return the request. One that cannot be understood goes to the upstream and is not cached.

    Raises:
        BadRequest: it is not a JSON object, or names no model.
    """
    if not body:
        raise BadRequest("the request body is empty; it must be a JSON object")
    try:
        fields = _DECODER.decode(body)
        cache = fields.pop("cache") if isinstance(fields.get("cache"), dict) else None
        if cache is not None:
            body = msgspec.json.encode(fields)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError) as error:
        raise BadRequest(f"the request body is not usable JSON: {error}") from None
    try:
        model = msgspec.convert(fields, NamedModel).model
    except msgspec.ValidationError as error:
        raise refusal(error) from None
    options = fields.get("stream_options")
    return ChatRequest(
        model=model,
        form="stream" if fields.get("stream") is True else "plain",
        wants_usage=isinstance(options, dict) and options.get("include_usage") is True,
        bypass=_reason_to_bypass(fields, max_temperature),
        body=body,
        cache=cache or {},
        fields=fields,
    )


def _canonical(fields: dict[str, Any]) -> str:
    kept = {name: value for name, value in fields.items() if name not in _NOT_IN_KEY}
    return _ENCODER.encode(kept).decode()


def _reason_to_bypass(fields: dict[str, Any], max_temperature: float) -> Bypass | None:
    messages = fields.get("messages")
    if not isinstance(messages, list) or not messages:
        return "shape"
    if not all(isinstance(message, dict) for message in messages):
        return "shape"
    if fields.get("tools") or fields.get("functions"):
        return "tools"
    for message in messages:
        if message.get("role") in ("tool", "function") or message.get("tool_calls"):
            return "tools"
        content = message.get("content")
        if content is not None and _text_of(content) is None:
            return "media"
    if fields.get("audio") or fields.get("modalities") not in (None, ["text"]):
        return "media"
    temperature = fields.get("temperature")
    if temperature is None:
        temperature = _DEFAULT_TEMPERATURE
    if isinstance(temperature, bool) or not isinstance(temperature, int | float):
        return "shape"
    if temperature > max_temperature:
        return "temperature"
    if fields.get("n") not in (None, 1):
        return "n"
    if fields.get("store") is False:
        return "store"
    return "search" if fields.get("web_search_options") is not None else None


def _text_of(content: Any) -> str | None:
    """Return a message's text; None if there is anything but text in it."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return None
    parts = []
    for part in content:
        if not isinstance(part, dict) or part.get("type") != "text":
            return None
        if not isinstance(part.get("text"), str):
            return None
        parts.append(part["text"])
    return "\n".join(parts)
