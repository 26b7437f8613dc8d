"""An answer that is known whole: its head and its body as the bytes of one write."""

from collections.abc import Iterable

import msgspec
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from cacheproxy.api.response import error_body
from cacheproxy.errors import ApiError

Header = tuple[bytes, bytes]


def whole_answer(status: int, headers: Iterable[Header], body: bytes) -> bytes:
    """Return the bytes of an answer; `headers` have valid names and values, and no length."""
    parts = [STATUS_LINE[status]]
    for name, value in headers:
        parts += (name, b": ", value, b"\r\n")
    parts.append(b"content-length: %d\r\n\r\n" % len(body))
    parts.append(body)
    return b"".join(parts)


def refusal(error: ApiError) -> bytes:
    """Return the answer to a request that the connection itself refuses, and then closes."""
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    if error.retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % max(1, error.retry_after_s)))
    return whole_answer(error.status, headers, msgspec.json.encode(error_body(error)))
