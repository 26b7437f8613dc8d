"""What is said to a client whose JSON or header has the wrong type: one wording for all of them.

The types that msgspec validates are the ones that the OpenAPI document is made from.
"""

import re
from typing import Any, TypeVar

import msgspec

from cacheproxy.errors import BadRequest

T = TypeVar("T")

_PLACE = re.compile(r" - at `\$\.?(.*?)`$", re.DOTALL)
_INDEX = re.compile(r"\[(\d+|\.\.\.)\]")

_QUOTED_VALUE = re.compile(r" '.*'", re.DOTALL)
"""A value that msgspec quotes. No message repeats what a request held."""

_EMPTY = re.compile(r"Expected `(?:str|array|object)` of length >= 1$")


def refusal(error: msgspec.ValidationError) -> BadRequest:
    """Return the error to answer with; it names the field, and never its value."""
    found = _PLACE.search(str(error))
    place = found.group(1) if found else ""
    expected = _PLACE.sub("", str(error))
    field = _INDEX.split(place)[0].split(".")[0] or None
    if _EMPTY.match(expected):
        where = _INDEX.sub(r" \1", place) or "the request body"
        code = None if field is None else f"empty_{field}"
        return BadRequest(f"{where} is empty", param=field, code=code)
    return BadRequest(f"invalid request: {_QUOTED_VALUE.sub('', str(error))}", param=field)


def convert(
    value: Any, kind: type[T] | Any, name: str, *, param: str | None = None, is_text: bool = False
) -> T:
    """Return a value that a client gave, as `kind`.

    Args:
        value: text, or what JSON was decoded to.
        kind: a type that msgspec knows.
        name: what the client knows the value by, such as a header's name.
        param: the field of the request's body, if it came there.
        is_text: whether the value came as text only, so that "1" is a number where one is wanted.

    Raises:
        BadRequest: the value is not of that kind.
    """
    try:
        converted: T = msgspec.convert(value, kind, strict=not is_text)
    except msgspec.ValidationError as error:
        expected = _QUOTED_VALUE.sub("", str(error))
        raise BadRequest(f"{name} is not valid: {expected}", param=param) from None
    return converted
