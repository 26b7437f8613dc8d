"""A completion request, understood as far as the cache must: what its answer depends on.

Two requests are the same if everything that changes the answer is: model, messages, sampling,
formats, and every field that is not known here, `user` included. How the answer is sent (`stream`)
and what is asked of the cache (`cache`) are left out.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta

from cacheproxy.errors import BadRequest
from cacheproxy.keys import encode_fields, key_scope
from cacheproxy.routes.chat.signature import signature_of
from cacheproxy.validation import refusal

Form = Literal["plain", "stream"]
Bypass = Literal["tools", "media", "temperature", "n", "store", "search", "shape", "state"]

NOT_IN_KEY = frozenset(("stream", "stream_options", "cache"))

_DECODER = msgspec.json.Decoder(dict[str, Any])
_ENCODER = msgspec.json.Encoder(order="deterministic")

_DEFAULT_TEMPERATURE = 1.0
"""Of a request that names none: OpenAI's and Anthropic's default."""

_LONGEST_QUESTION = 2_000
"""Characters; longer ones are exact-only. The probe, which reads 256 tokens, would cut them, and
their signature would take time on the event loop."""


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


class Divided(NamedTuple):
    """The text of a request's last user turn, and all other fields."""

    question: str
    rest: dict[str, Any]


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """One request.

    Attributes:
        dialect: name of the API that it was made in.
        model: the model's name.
        form: whether the answer is wanted whole or as a stream.
        wants_usage: whether a stream is to tell the tokens used.
        bypass: why the request bypasses the tiers, or None.
        body: what is sent upstream: the client's bytes, without a `cache` field.
        cache: LiteLLM's `cache` field, or nothing.
        fields: all of the body but `cache`.
        divided: its last user turn apart from the rest; None if that is no text.
        keeps_tool_calls: whether an answer that calls tools may be kept.
    """

    dialect: str
    model: str
    form: Form
    wants_usage: bool
    bypass: Bypass | None
    body: bytes
    cache: dict[str, Any]
    fields: dict[str, Any]
    divided: Divided | None = None
    keeps_tool_calls: bool = False

    def key(self, namespace_id: str, scope: str) -> bytes:
        """Return the key [32 bytes] of its entry in a namespace and the scope of a caller."""
        return key_scope(namespace_id, self.dialect, scope).of_text(self.canonical())

    def canonical(self) -> str:
        """Return what the answer depends on, the same for the same requests."""
        return _canonical(self.fields)

    def plain_body(self) -> bytes:
        """Return the body that asks for the same answer, whole."""
        return msgspec.json.encode(
            {k: v for k, v in self.fields.items() if k not in ("stream", "stream_options")}
        )

    def body_for(self, model: str) -> bytes:
        """Return the body that asks another model for the same."""
        return msgspec.json.encode({**self.fields, "model": model})

    def with_tools_cached(self) -> "CompletionRequest":
        """Return the request as it is where tool calls are cached: at temperature 0, exactly."""
        temperature = self.fields.get("temperature")
        if self.bypass != "tools" or isinstance(temperature, bool) or temperature != 0:
            return self
        return replace(self, bypass=None, keeps_tool_calls=True)

    def user_turn(self, scope: str) -> UserTurn | None:
        """Return the last user turn and its context; None if it is no text, or a long one.

        `scope` is what else has to be equal for two contexts to be.
        """
        if self.divided is None:
            return None
        question, rest = self.divided
        if len(question) > _LONGEST_QUESTION or not question.strip():
            return None
        encoded = encode_fields(self.dialect, scope, _canonical(rest), signature_of(question))
        return UserTurn(question, hashlib.sha256(encoded).hexdigest())


def parse_request(
    dialect: str,
    body: bytes,
    *,
    reason_to_bypass: Callable[[dict[str, Any]], Bypass | None],
    divide: Callable[[dict[str, Any]], Divided | None],
    always_tells_usage: bool = False,
) -> CompletionRequest:
    """Return the request that a body makes in a dialect; only what may be kept is divided.

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
    bypass = reason_to_bypass(fields)
    options = fields.get("stream_options")
    asks_for_usage = isinstance(options, dict) and options.get("include_usage") is True
    return CompletionRequest(
        dialect=dialect,
        model=model,
        form="stream" if fields.get("stream") is True else "plain",
        wants_usage=always_tells_usage or asks_for_usage,
        bypass=bypass,
        body=body,
        cache=cache or {},
        fields=fields,
        divided=None if bypass else divide(fields),
    )


def divide_messages(fields: dict[str, Any]) -> Divided | None:
    """Return the last message apart from all else; None if it is no text of a user."""
    *earlier, last = fields["messages"]
    text = text_of_parts(last.get("content"))
    if last.get("role") != "user" or text is None:
        return None
    return Divided(text, {**fields, "messages": [*earlier, {**last, "content": None}]})


def temperature_bypass(fields: dict[str, Any], max_temperature: float) -> Bypass | None:
    """Return why the temperature makes a request bypass the tiers, or None."""
    temperature = fields.get("temperature")
    if temperature is None:
        temperature = _DEFAULT_TEMPERATURE
    if isinstance(temperature, bool) or not isinstance(temperature, int | float):
        return "shape"
    return "temperature" if temperature > max_temperature else None


def text_of_parts(content: Any, kinds: tuple[str, ...] = ("text",)) -> str | None:
    """Return the text of a message's content; None if there is anything but text in it."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return None
    parts = []
    for part in content:
        if not isinstance(part, dict) or part.get("type") not in kinds:
            return None
        if not isinstance(part.get("text"), str):
            return None
        parts.append(part["text"])
    return "\n".join(parts)


def _canonical(fields: dict[str, Any]) -> str:
    kept = {name: value for name, value in fields.items() if name not in NOT_IN_KEY}
    return _ENCODER.encode(kept).decode()
