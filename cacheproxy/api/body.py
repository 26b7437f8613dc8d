"""Reads a request's body, bounded in bytes, before it is decoded."""

from collections.abc import Mapping
from typing import TypeVar

import msgspec
from starlette.types import Receive

from cacheproxy.api.connection import ClientGone
from cacheproxy.errors import BadRequest
from cacheproxy.validation import refusal

T = TypeVar("T")

_DISCARD_FACTOR = 8
"""This multiple of the limit is read and discarded, so that a client that is still sending receives
the 413 instead of a reset connection."""


async def read_body(headers: Mapping[bytes, bytes], receive: Receive, *, max_bytes: int) -> bytes:
    """Return the whole body.

    Raises:
        BadRequest: it is too large (413) or compressed (415).
        ClientGone: the client disconnected.
    """
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise BadRequest("compressed request bodies are not accepted", status=415)
    chunks: list[bytes] = []
    size, more = 0, True
    while more and size <= _DISCARD_FACTOR * max_bytes:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunk = message.get("body", b"")
        more = message.get("more_body", False)
        size += len(chunk)
        if size <= max_bytes:
            chunks.append(chunk)
    if size > max_bytes:
        raise BadRequest(
            f"the request body is larger than {max_bytes} bytes",
            status=413,
            code="request_too_large",
        )
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def decode_json(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """Return the body as the decoder's type.

    Raises:
        BadRequest: it is not JSON, not UTF-8, nested too deeply, or not of that type.
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
