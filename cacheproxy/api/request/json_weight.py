"""What a body of JSON takes once it is parsed, from its bytes alone, before it is parsed.

Each element of an array and each member of an object costs up to 122 bytes as a Python object (a
member with a short name and a float; measured, CPython 3.11), but as little as two bytes of body:
`[],[],[],…` grows 34 times, and keeps the event loop busy several times as long as as many numbers
(300,000 empty arrays, in 0.9 MB, for 32 ms). A character outside the first 65,536 makes four bytes
of each character of its string. Nesting is bounded by the parser, which gives up after some 900
levels.
"""

from cacheproxy.errors import BadRequest

SMALL_BYTES = 1_024
"""Bodies up to this size are not looked at: they take 35 kB at most."""

_ELEMENT_BYTES = 128
_CONTAINER = 4
"""An array or an object counts for so many elements."""

_FREE_BYTES = 64 * 1024
"""What a parsed body may take without being counted, as for bodies themselves."""

_WIDE = (b"\xf0", b"\xf1", b"\xf2", b"\xf3", b"\xf4", b"\\ud8", b"\\uD8", b"\\ud9", b"\\uD9")
_WIDE_MORE = (b"\\uda", b"\\uDa", b"\\udA", b"\\uDA", b"\\udb", b"\\uDb", b"\\udB", b"\\uDB")


def parsed_bytes(body: bytes, *, most_elements: int) -> int:
    """Return an upper estimate of the memory for a parsed body; 0 if it is too little to count.

    Commas and brackets within strings count as well: telling them apart would cost a parse.

    Raises:
        BadRequest: it has too many elements (413).
    """
    size = len(body)
    if size <= SMALL_BYTES:
        return 0
    containers = body.count(b"[") + body.count(b"{")
    weight = _CONTAINER * containers
    commas = body.count(b",") if weight <= most_elements else 0  # which takes longer
    if commas + weight > most_elements:
        raise BadRequest(
            f"the request body has more than {most_elements} elements",
            status=413,
            code="request_too_large",
        )
    taken = (commas + containers) * _ELEMENT_BYTES
    if size > _FREE_BYTES and any(mark in body for mark in (*_WIDE, *_WIDE_MORE)):
        taken += 4 * size
    return taken if taken > _FREE_BYTES else 0
