"""Sending JSON: every body that the proxy makes itself goes out here, errors included."""

from typing import Any

import msgspec
from starlette.types import Send

from cacheproxy.api.connection import CLIENT_GONE, ClientGone
from cacheproxy.api.presentation import Headers
from cacheproxy.errors import ApiError

_JSON = (b"content-type", b"application/json")


async def send_json(send: Send, status: int, body: bytes, headers: Headers) -> None:
    """Send a whole response with a JSON body."""
    length = (b"content-length", b"%d" % len(body))
    await send(
        {"type": "http.response.start", "status": status, "headers": [_JSON, length, *headers]}
    )
    await send({"type": "http.response.body", "body": body})


def error_body(error: ApiError) -> dict[str, Any]:
    """Return an error in OpenAI's shape."""
    return {
        "error": {
            "message": error.message,
            "type": error.kind,
            "param": error.param,
            "code": error.code,
        }
    }


def status_of(error: Exception) -> str:
    """Return the status by which a failed request is counted."""
    if isinstance(error, ClientGone):
        return str(CLIENT_GONE)
    return str(error.status) if isinstance(error, ApiError) else "500"


async def send_error(send: Send, error: ApiError) -> None:
    """Send an error in OpenAI's shape: {"error": {"message", "type", "param", "code"}}."""
    headers: Headers = []
    if error.retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % max(1, error.retry_after_s)))
    if error.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send_json(send, error.status, msgspec.json.encode(error_body(error)), headers)
