"""Sending JSON: every body that the proxy writes itself goes out here, errors included."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated, TypedDict

import msgspec
from msgspec import Meta
from starlette.types import Send

from cacheproxy.api.connection import CLIENT_GONE, ClientGone
from cacheproxy.api.operation import Content, Parameter, Reply, Status
from cacheproxy.api.presentation import Body, Headers
from cacheproxy.errors import (
    ApiError,
    BadRequest,
    Forbidden,
    NotCached,
    Overloaded,
    Unauthorized,
    Unavailable,
    UpstreamFailed,
)

_CLOSING_CODES = frozenset(("invalid_http", "duplicate_header"))
"""After these errors, as after a body that did not come, it is not sure where the next request
begins, or others may read the request differently: the connection is closed."""

JSON = (b"content-type", b"application/json")


class ErrorDetail(TypedDict):
    """What went wrong."""

    message: Annotated[
        str, Meta(description="A message for people. It repeats nothing of the request.")
    ]
    type: Annotated[str, Meta(description="The kind of error, in OpenAI's terms.")]
    param: Annotated[str | None, Meta(description="The field of the request at fault.")]
    code: Annotated[str | None, Meta(description="A stable code for programs.")]


class ErrorBody(TypedDict):
    """OpenAI's error object. Every error of the proxy has this format."""

    error: ErrorDetail


REQUEST_ID = Parameter(
    "X-Request-Id",
    str,
    "The request's id, which is also in the log and in traces. It is the client's own "
    "`X-Request-Id` if that has up to 128 letters, digits and `. _ : / + = -`.",
)
_ALWAYS_WITH_ID = Parameter(
    REQUEST_ID.name, REQUEST_ID.type, REQUEST_ID.description, is_required=True
)
_RETRY_AFTER = Parameter(
    "Retry-After",
    Annotated[int, Meta(ge=1)],
    "Seconds after which a retry may succeed, if known.",
)
_WWW_AUTHENTICATE = Parameter("WWW-Authenticate", str, "`Bearer`.", is_required=True)
_ALLOW = Parameter("Allow", str, "The methods that the path accepts.", is_required=True)

_REFUSALS: Mapping[int, tuple[str, ApiError]] = {
    400: (
        "The request cannot be understood: its JSON, a field, or a header.",
        BadRequest("input is empty", param="input", code="empty_input"),
    ),
    401: (
        "The server has API keys configured, and the request carries none of them.",
        Unauthorized("the API key is not known", code="invalid_api_key"),
    ),
    403: (
        "The caller is not allowed to make this request.",
        Forbidden("without an admin token, only clients on this machine are allowed"),
    ),
    404: (
        "The resource that the request names does not exist.",
        BadRequest(
            "the model 'other' is not served here",
            status=404,
            param="model",
            code="model_not_found",
        ),
    ),
    408: (
        "The body did not arrive in time (`limits.body_timeout_s`).",
        BadRequest("the request body did not arrive within 30 s", status=408),
    ),
    413: (
        "The body is larger than the server accepts.",
        BadRequest(
            "the request body is larger than 2097152 bytes",
            status=413,
            code="request_too_large",
        ),
    ),
    415: (
        "The body is compressed, or not of the content type that is needed.",
        BadRequest("compressed request bodies are not accepted", status=415),
    ),
    422: (
        "There are more inputs, or longer ones, than the server accepts (`limits.inputs`, "
        "`limits.characters`).",
        BadRequest(
            "2049 inputs are too many; one request takes up to 2048",
            status=422,
            param="input",
            code="too_many_inputs",
        ),
    ),
    429: (
        "The inference queue is too long to answer in time. Nothing was computed.",
        Overloaded("the inference queue is full", code="queue_full", retry_after_s=1),
    ),
    500: (
        "Something broke inside the proxy. The log has the cause under the request's id.",
        ApiError("internal error", code="internal_error"),
    ),
    502: (
        "The upstream gave no answer, or one that cannot be forwarded.",
        UpstreamFailed(
            "the upstream could not be reached, or closed the connection",
            code="upstream_connect",
        ),
    ),
    503: (
        "The server is stopping, or a service that it depends on is unavailable.",
        Unavailable("the server is stopping", retry_after_s=1),
    ),
    504: (
        "Only a cached answer was wanted (`Cache-Control: only-if-cached`) and there is none, or "
        "the upstream did not answer in time.",
        NotCached("1 inputs are not cached, and only cached ones are wanted"),
    ),
}
"""What each status means, with an example error."""

_EXTRA_HEADERS = {401: _WWW_AUTHENTICATE, 405: _ALLOW, 429: _RETRY_AFTER, 503: _RETRY_AFTER}


def error_body(error: ApiError) -> ErrorBody:
    """Return an error in OpenAI's format."""
    return {
        "error": {
            "message": error.message,
            "type": error.kind,
            "param": error.param,
            "code": error.code,
        }
    }


def refusals(*statuses: int, because: Mapping[int, str] | None = None) -> dict[Status, Reply]:
    """Return the descriptions of errors with these statuses, as `send_error` writes them.

    `because` replaces the general description of a status by a more exact one.
    """
    return {status: _refusal(status, (because or {}).get(status)) for status in statuses}


def _refusal(status: int, because: str | None) -> Reply:
    general, error = _REFUSALS[status]
    headers = [_ALWAYS_WITH_ID]
    if status in _EXTRA_HEADERS:
        headers.append(_EXTRA_HEADERS[status])
    examples = {} if because else {HTTPStatus(status).phrase: error_body(error)}
    return Reply(because or general, (Content(ErrorBody, examples),), tuple(headers))


async def send_json(send: Send, status: int, body: Body, headers: Headers) -> None:
    """Send a whole response with a JSON body; pieces leave as the client takes them."""
    pieces = (body,) if isinstance(body, bytes) else body
    length = (b"content-length", b"%d" % sum(map(len, pieces)))
    await send(
        {"type": "http.response.start", "status": status, "headers": [JSON, length, *headers]}
    )
    for piece in pieces[:-1]:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": pieces[-1]})


def status_of(error: Exception) -> str:
    """Return the status under which a failed request is counted."""
    if isinstance(error, ClientGone):
        return str(CLIENT_GONE)
    return str(error.status) if isinstance(error, ApiError) else "500"


async def send_error(send: Send, error: ApiError, headers: Headers | None = None) -> None:
    """Send an error in OpenAI's format: {"error": {"message", "type", "param", "code"}}."""
    headers = list(headers or [])
    if error.retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % max(1, error.retry_after_s)))
    if error.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if error.status == 408 or error.code in _CLOSING_CODES:
        headers.append((b"connection", b"close"))
    await send_json(send, error.status, msgspec.json.encode(error_body(error)), headers)
