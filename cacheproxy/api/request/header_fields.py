"""A request's header lines as one mapping, in which no line is lost to another of its name.

Lines of one name are one list (RFC 9110, section 5.3), so that `no-store` counts on whichever line
it stands. Headers that take a single value must not come with two different ones: which of them
counts would depend on who looks.
"""

from collections.abc import Iterable

from cacheproxy.errors import BadRequest

_SINGLE = frozenset(
    (
        *(b"authorization", b"x-api-key", b"content-type", b"content-length"),
        *(b"x-cacheproxy-namespace", b"x-cacheproxy-semantic"),
        *(b"x-cacheproxy-min-similarity", b"x-cacheproxy-ttl"),
        *(b"openai-organization", b"openai-project", b"anthropic-version", b"idempotency-key"),
    )
)


def combined(lines: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Return the values of lines, whose names are in lower case, by name.

    Raises:
        BadRequest: a header that takes a single value has several.
    """
    fields: dict[bytes, bytes] = {}
    for name, value in lines:
        if name not in fields:
            fields[name] = value
        elif name == b"host" or (name in _SINGLE and value != fields[name]):
            raise BadRequest(
                f"the header {name.decode('latin-1').title()} may be sent only once",
                code="duplicate_header",
            )
        elif name not in _SINGLE:
            fields[name] += b", " + value
    return fields
