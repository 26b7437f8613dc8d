"""The one hierarchy of errors: what a client did wrong, what is overloaded, what is broken.

Whatever stands below the HTTP edge raises these; only the edge (`api/`) turns an `ApiError` into
an OpenAI-shaped body. Errors that no request sees (a store that is sick, a model that is not
installed, a mistaken setting) share the root, so that start-up can report each in one line.
"""

from typing import Literal, TypeVar

E = TypeVar("E", bound=BaseException)


class CacheproxyError(Exception):
    """Root of all errors that cacheproxy raises on purpose; its message is one clear line."""


class ApiError(CacheproxyError):
    """An error that a client is told of.

    Attributes:
        status: HTTP status code.
        kind: OpenAI's `error.type`.
        code: OpenAI's `error.code`, a stable word for programs, or None.
        param: the request field at fault, or None.
        retry_after_s: seconds after which a retry may succeed, or None.
        delay_s: seconds for which it is held back, so that a client that does not wait before it
            comes again cannot keep the server busy with refusals.
    """

    status = 500
    kind = "api_error"
    delay_s = 0.0

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        param: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status if status is not None else type(self).status
        self.code = code
        self.param = param
        self.retry_after_s = retry_after_s


class BadRequest(ApiError):
    """The request cannot be served as it is; the same request will fail again."""

    status = 400
    kind = "invalid_request_error"


class Unauthorized(ApiError):
    """No key, or one that is not known."""

    status = 401
    kind = "authentication_error"


class Forbidden(ApiError):
    """The caller may not ask for this."""

    status = 403
    kind = "permission_error"


class NotCached(ApiError):
    """`only-if-cached` was asked for and at least one text is not cached (RFC 9111, 5.2.1.7)."""

    status = 504
    kind = "cache_miss"


class Overloaded(ApiError):
    """The inference queue is too long for the request to be served in time."""

    status = 429
    kind = "rate_limit_error"


class Unavailable(ApiError):
    """The server is stopping, or work that it accepted could not be served in time."""

    status = 503
    kind = "service_unavailable"


class UpstreamFailed(ApiError):
    """An upstream gave no answer, or none that can be passed on; nothing of it was stored.

    The code says what it failed of: upstream_connect, upstream_timeout, upstream_truncated,
    upstream_malformed.
    """

    status = 502
    kind = "upstream_error"


class InferenceFailed(ApiError):
    """The model gave no usable vector for a text; nothing of it was stored."""

    status = 500
    kind = "api_error"


StoreErrorKind = Literal[
    "timeout",
    "connection",
    "readonly",
    "oom",
    "loading",
    "unavailable",
    "noauth",
    "protocol",
    "invalid",
    "other",
]
"""Why a store did not answer: few words, so that a metric can be labelled with them. All but
"invalid", a call or an entry that no store would take, say that the store is not well."""


class StoreError(CacheproxyError):
    """The store could not do what was asked; the request goes on without it.

    Attributes:
        kind: what it failed of.
    """

    def __init__(self, message: str, kind: StoreErrorKind = "other") -> None:
        super().__init__(message)
        self.kind = kind


class RecordError(CacheproxyError):
    """Stored bytes that are not a whole, valid record of the entry that was asked for."""


class ConfigError(CacheproxyError):
    """Settings that cannot be used; the message has one line per mistake."""


class WorkerDied(CacheproxyError):
    """A worker process ended, or could not be started."""


class ModelError(CacheproxyError):
    """A model cannot be fetched, built, or used."""


class ModelMissing(ModelError):
    """The model is not installed."""


class ModelCorrupt(ModelError):
    """Files of an installed model are not what its build wrote."""


def without_frames(error: E) -> E:
    """Return an error without its traceback, and without those of the errors that led to it.

    A traceback holds frames with all their variables, and some of them hold the error. Such a
    circle would keep a request's body until the garbage collector runs.
    """
    cause: BaseException | None = error
    while cause is not None:
        cause.__traceback__ = None
        cause = cause.__cause__ or cause.__context__
    return error
