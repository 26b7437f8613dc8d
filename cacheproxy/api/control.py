"""Request headers that control the cache: RFC 9111 `Cache-Control` and `X-Cacheproxy-*`.

Two tables define what is understood. Parsing and documentation (`CONTROL_HEADERS`) use both.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from msgspec import Meta

from cacheproxy.api.operation import Parameter
from cacheproxy.routes.exchange import DEFAULT_CONTROL, Control
from cacheproxy.settings.sections import MOST_TTL_S
from cacheproxy.validation import convert

Age = Annotated[float, Meta(ge=0)]
Ttl = Annotated[float, Meta(ge=1, le=MOST_TTL_S)]
_Tag = Annotated[str, Meta(pattern=r"^[A-Za-z0-9._:/-]{1,128}$")]


@dataclass(frozen=True, slots=True)
class _Directive:
    """A directive of Cache-Control, and the field of `Control` that it sets.

    Attributes:
        field: the field of `Control`.
        type: the type of its argument; None if it has none, in which case the field becomes true.
        description: Markdown.
    """

    field: str
    type: Any
    description: str


_DIRECTIVES = {
    "no-cache": _Directive(
        "no_cache", None, "skip the lookup; compute the answer and refresh the entry"
    ),
    "no-store": _Directive("no_store", None, "skip the lookup and store nothing"),
    "only-if-cached": _Directive(
        "only_if_cached", None, "answer 504 if there is no cached answer; compute nothing"
    ),
    "max-age": _Directive("max_age_s", Age, "accept no entry older than this many seconds"),
    "stale-if-error": _Directive(
        "stale_if_error_s",
        Age,
        "if the upstream fails, accept an entry that has been stale for up to this many seconds, "
        "within the server's limit (chat only)",
    ),
}


@dataclass(frozen=True, slots=True)
class _ControlHeader:
    """An `X-Cacheproxy-*` header, the field of `Control` that it sets, and how it is parsed.

    Attributes:
        parameter: its name, type and meaning.
        field: the field of `Control`.
        split: converts the text into the value that is validated.
        finish: converts the validated value into the field's value.
    """

    parameter: Parameter
    field: str
    split: Callable[[str], Any] = str
    finish: Callable[[Any], Any] = lambda value: value


def _elements(text: str) -> list[str]:
    """Return the distinct elements of a comma-separated list, in order."""
    return list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


_HEADERS = {
    each.parameter.name.lower().encode(): each
    for each in (
        _ControlHeader(
            Parameter(
                "X-Cacheproxy-Semantic",
                Literal["on", "off"],
                "`off` accepts no semantic hit: only an entry of the same request is served.",
                example="off",
            ),
            "semantic",
            split=lambda text: text.strip().lower(),
            finish=lambda value: value != "off",
        ),
        _ControlHeader(
            Parameter(
                "X-Cacheproxy-Min-Similarity",
                Annotated[float, Meta(ge=0, le=1)],
                "A stricter limit on semantic hits than the server's: for embeddings, the cosine "
                "similarity of the true vector and the served one; for chat, the minimum score.",
                example=0.97,
            ),
            "min_similarity",
        ),
        _ControlHeader(
            Parameter(
                "X-Cacheproxy-TTL",
                Ttl,
                "TTL of the entries that this request creates, in seconds.",
                example=3600,
            ),
            "ttl_s",
        ),
        _ControlHeader(
            Parameter(
                "X-Cacheproxy-Tags",
                Annotated[list[_Tag], Meta(max_length=16)],
                "Tags by which the entries that this request creates can be purged, separated by "
                "commas.",
                example=["docs", "release:1.2"],
            ),
            "tags",
            split=_elements,
            finish=tuple,
        ),
        _ControlHeader(
            Parameter(
                "X-Cacheproxy-Variant",
                Literal["canary", "stable"],
                "Where the model has a canary: which of the two models is to answer, whatever "
                "the caller's share is.",
                example="canary",
            ),
            "variant",
            split=lambda text: text.strip().lower(),
        ),
    )
}

_CACHE_CONTROL = b"cache-control"
_NAMES = frozenset((_CACHE_CONTROL, *_HEADERS))

CONTROL_HEADERS = (
    Parameter(
        "Cache-Control",
        str,
        "Directives of RFC 9111 and RFC 5861; unknown ones are ignored.\n\n"
        + "\n".join(
            f"- `{name}{'' if one.type is None else '=N'}`: {one.description}"
            for name, one in _DIRECTIVES.items()
        ),
        example="max-age=3600",
    ),
    *(each.parameter for each in _HEADERS.values()),
)
"""The headers that `parse_control` understands, for the OpenAPI document."""


def is_plain(headers: Mapping[bytes, bytes]) -> bool:
    """Return whether a request has no header that controls the cache."""
    return _NAMES.isdisjoint(headers)


def parse_control(headers: Mapping[bytes, bytes]) -> Control:
    """Return what the request asks of the cache.

    Unknown `Cache-Control` directives are ignored, as RFC 9111 section 5.2 demands.

    Raises:
        BadRequest: an `X-Cacheproxy-*` header or a supported directive has an invalid value.
    """
    if is_plain(headers):
        return DEFAULT_CONTROL
    fields: dict[str, Any] = {}
    for name, argument in _directives(headers.get(_CACHE_CONTROL, b"").decode("latin-1")).items():
        directive = _DIRECTIVES.get(name)
        if directive is None:
            continue
        said_in = f"Cache-Control: {name}"
        fields[directive.field] = directive.type is None or convert(
            argument, directive.type, said_in, is_text=True
        )
    for raw_name, header in _HEADERS.items():
        if raw_name in headers:
            parameter = header.parameter
            given = header.split(headers[raw_name].decode("latin-1"))
            value = convert(given, parameter.type, parameter.name, is_text=True)
            fields[header.field] = header.finish(value)
    return Control(**fields)


def _directives(value: str) -> dict[str, str]:
    parts = (part.strip().partition("=") for part in value.split(","))
    return {name.strip().lower(): given.strip().strip('"') for name, _, given in parts if name}
