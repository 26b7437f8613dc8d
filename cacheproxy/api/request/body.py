"""Reading a request's body: bounded in bytes, before anything looks at it."""

from collections.abc import Callable, Mapping
from io import BytesIO
from typing import TypeVar

import msgspec
from starlette.types import Receive

from cacheproxy.api.connection import ClientGone
from cacheproxy.errors import BadRequest
from cacheproxy.validation import refusal

T = TypeVar("T")

_FREE_BYTES = 64 * 1024
"""Bodies up to this size are not counted: the number of connections bounds them."""


async def read_body(
    headers: Mapping[bytes, bytes],
    receive: Receive,
    *,
    max_bytes: int,
    reserve: Callable[[int], None] | None = None,
) -> bytes:
    """Return the whole body; `reserve` is called with bytes that are about to be read.

    What is not read after an error, the connection discards.

    Raises:
        ApiError: it is too large (413), compressed (415), or `reserve` refused it.
        ClientGone: the client left.
    """
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise BadRequest("compressed request bodies are not accepted", status=415)
    reserved = int(headers.get(b"content-length", b"0"))  # digits, the parser sees to it
    if reserved > max_bytes:
        raise _too_large(max_bytes)
    if reserved > _FREE_BYTES and reserve is not None:
        reserve(reserved)
    buffer: BytesIO | None = None
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        part: bytes = message.get("body", b"")
        more = message.get("more_body", False)
        size += len(part)
        if size > max_bytes:
            raise _too_large(max_bytes)
        if size > max(reserved, _FREE_BYTES) and reserve is not None:
            reserve(size - reserved)
            reserved = size
        if buffer is None:
            if not more:
                return part
            # One buffer that grows: a list of parts would leave the heap in pieces that stay.
            buffer = BytesIO()
        buffer.write(part)
        if not more:
            return buffer.getvalue()


def _too_large(max_bytes: int) -> BadRequest:
    message = f"the request body is larger than {max_bytes} bytes"
    return BadRequest(message, status=413, code="request_too_large")


def decode_json(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """Return the body as the decoder's type.

    Raises:
        BadRequest: it is not JSON, not UTF-8, nested without end, or not of that type.
    """
    if not body:
        raise BadRequest("the request body is empty; it must be a JSON object")
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise refusal(error) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"the request body is not valid JSON: {error}") from None
    except RecursionError:
        raise BadRequest("the request body is nested too deeply") from None
