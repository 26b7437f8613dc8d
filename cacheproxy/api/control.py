"""Request headers that steer the cache: RFC 9111 `Cache-Control` and `X-Cacheproxy-*`."""

import re
from collections.abc import Mapping

from cacheproxy.errors import BadRequest
from cacheproxy.routes.exchange import DEFAULT_CONTROL, Control
from cacheproxy.settings.sections import MOST_TTL_S

_HEADERS = frozenset(
    (
        b"cache-control",
        b"x-cacheproxy-semantic",
        b"x-cacheproxy-min-similarity",
        b"x-cacheproxy-ttl",
        b"x-cacheproxy-tags",
    )
)

_MOST_TAGS = 16
_TAG = re.compile(r"[A-Za-z0-9._:/-]{1,128}")


def parse_control(headers: Mapping[bytes, bytes]) -> Control:
    """Return what the request asks of the cache.

    Unknown `Cache-Control` directives are ignored, as RFC 9111 section 5.2 demands.

    Raises:
        BadRequest: a header of ours, or a directive that is honoured, has no usable value.
    """
    if _HEADERS.isdisjoint(headers):
        return DEFAULT_CONTROL
    directives = _directives(_text(headers, b"cache-control"))
    max_age_s = None
    if "max-age" in directives:
        max_age_s = _number("Cache-Control: max-age", directives["max-age"], 0, float("inf"))
    stale_if_error_s = None
    if "stale-if-error" in directives:
        value = directives["stale-if-error"]
        stale_if_error_s = _number("Cache-Control: stale-if-error", value, 0, float("inf"))
    return Control(
        no_cache="no-cache" in directives,
        no_store="no-store" in directives,
        only_if_cached="only-if-cached" in directives,
        max_age_s=max_age_s,
        stale_if_error_s=stale_if_error_s,
        semantic=_semantic(headers),
        min_similarity=_optional_number(headers, b"x-cacheproxy-min-similarity", 0, 1),
        ttl_s=_optional_number(headers, b"x-cacheproxy-ttl", 1, MOST_TTL_S),
        tags=_tags(headers),
    )


def _directives(value: str) -> dict[str, str]:
    parts = (part.strip().partition("=") for part in value.split(","))
    return {name.strip().lower(): given.strip().strip('"') for name, _, given in parts if name}


def _semantic(headers: Mapping[bytes, bytes]) -> bool:
    value = _text(headers, b"x-cacheproxy-semantic").strip().lower()
    if value not in ("", "on", "off"):
        raise BadRequest("X-Cacheproxy-Semantic must be 'on' or 'off'")
    return value != "off"


def _tags(headers: Mapping[bytes, bytes]) -> tuple[str, ...]:
    value = _text(headers, b"x-cacheproxy-tags")
    tags = tuple(dict.fromkeys(tag.strip() for tag in value.split(",") if tag.strip()))
    if len(tags) > _MOST_TAGS or not all(_TAG.fullmatch(tag) for tag in tags):
        raise BadRequest(
            f"X-Cacheproxy-Tags takes up to {_MOST_TAGS} comma-separated tags "
            "of up to 128 letters, digits and . _ : / -"
        )
    return tags


def _optional_number(
    headers: Mapping[bytes, bytes], name: bytes, least: float, most: float
) -> float | None:
    if name not in headers:
        return None
    return _number(name.decode().title(), _text(headers, name), least, most)


def _number(name: str, value: str, least: float, most: float) -> float:
    try:
        number = float(value)
    except ValueError:
        number = float("nan")
    if not least <= number <= most:  # false for NaN
        raise BadRequest(f"{name} must be a number from {least:g} to {most:g}")
    return number


def _text(headers: Mapping[bytes, bytes], name: bytes) -> str:
    return headers.get(name, b"").decode("latin-1")
