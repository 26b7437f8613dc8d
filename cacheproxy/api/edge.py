"""The outermost ASGI application: routes, ids, and every error as an OpenAI-shaped body."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

from starlette.exceptions import HTTPException
from starlette.routing import Route, Router
from starlette.types import Message, Receive, Scope, Send

from cacheproxy.api.connection import CLIENT_GONE, ClientGone
from cacheproxy.api.repeated.at_once import EARLIER, AnswersAtOnce, AtOnce
from cacheproxy.api.request.header_fields import combined
from cacheproxy.api.response import send_error
from cacheproxy.errors import ApiError, BadRequest, without_frames
from cacheproxy.telemetry.journal import Journal
from cacheproxy.telemetry.request_trace import VISIT, Visit

logger = logging.getLogger(__name__)


class Edge:
    """Serves the routes; every error that they raise is turned into a response here only.

    Attributes:
        at_once: answers some requests before they come here.
    """

    def __init__(
        self,
        routes: Sequence[Route],
        journal: Journal,
        check: Callable[[Scope], None] | None = None,
        absent: Mapping[str, str] | None = None,
    ) -> None:
        """Prepare.

        `check` raises an `ApiError` for a request that no route may receive. `absent` says of
        paths, and of all below a path that ends with a slash, what the server needs to have them.
        """
        self._check = check
        self._absent = absent or {}
        self._router = Router(routes, redirect_slashes=False)
        # The router tries routes in turn; busy routes are found directly by their fixed paths.
        self._posts = {route.path: route.app for route in routes if route.methods == {"POST"}}
        self._paths = frozenset(route.path for route in routes)
        self._journal = journal
        self._closes = False
        self.at_once = AtOnce(journal)
        for path, app in self._posts.items():
            if check is None and isinstance(app, AnswersAtOnce):
                self.at_once.add(path, app)

    def close_connections(self) -> None:
        """Close the connection after each answer, so that clients open new ones elsewhere."""
        self._closes = True
        self.at_once.stop()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        if scope["type"] != "http":
            raise RuntimeError(f"the protocol {scope['type']} is not supported")
        app = self._posts.get(scope["path"]) if scope["method"] == "POST" else None
        headers = dict(scope["headers"])
        visit = scope[VISIT] = self._journal.open(headers, is_traced=app is not None)
        if EARLIER in scope:
            opened: Visit = scope[EARLIER].visit
            visit.started, visit.stages = opened.started, opened.stages
        answer = _Answer(send, visit, self._closes)
        # Most answers need no extra headers, and endpoints record their status. Passing
        # `send` unwrapped saves 1 % of a hot hit.
        is_plain = not visit.tells_id and not self._closes
        try:
            if len(headers) != len(scope["headers"]):
                headers.update(combined(scope["headers"]))
            if b"host" not in headers and scope["http_version"] != "1.0":
                raise BadRequest("the header Host is missing", code="invalid_http")
            if self._check is not None:
                self._check(scope)
            if app is not None:
                await app(scope, receive, send if is_plain else answer)
            else:
                if scope["path"] in self._paths:
                    visit.route = scope["path"]
                scope["app"] = self  # makes the router raise for unknown paths instead of answering
                await self._router(scope, receive, answer)
        except ClientGone as error:
            visit.status = CLIENT_GONE
            without_frames(error)
        except ApiError as error:
            if error.delay_s:
                await asyncio.sleep(error.delay_s)
            await send_error(answer, error)
            without_frames(error)
        except HTTPException as error:
            named = [(k.lower().encode(), v.encode()) for k, v in (error.headers or {}).items()]
            await send_error(answer, self._unknown(error, scope), named)
        except Exception:
            request_id = visit.request_id.decode()
            # Neither path nor message is logged: the log must contain nothing of the request.
            logger.exception("request failed", extra={"fields": {"request_id": request_id}})
            # If the answer has begun already, uvicorn refuses this and closes the connection.
            await send_error(answer, ApiError("internal error", code="internal_error"))
        finally:
            self._journal.close(visit)

    def _unknown(self, error: HTTPException, scope: Scope) -> ApiError:
        if error.status_code == 405:
            message, code = f"{scope['method']} is not allowed on this path", "method_not_allowed"
        else:
            message, code = "there is no resource at this path", "not_found"
            asked = scope["path"]
            for path, need in self._absent.items():
                if asked == path or (path.endswith("/") and asked.startswith(path)):
                    message = f"{message}: {need}"
                    break
        return BadRequest(message, status=error.status_code, code=code)


class _Answer:
    """A `Send` that adds the headers that every answer carries, and records its status."""

    __slots__ = ("_closes", "_send", "_visit")

    def __init__(self, send: Send, visit: Visit, closes: bool) -> None:
        self._send = send
        self._visit = visit
        self._closes = closes

    def __call__(self, message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            self._visit.status = status = message["status"]
            if self._visit.tells_id or status >= 400:
                told = (b"x-request-id", self._visit.request_id)
                if told not in message["headers"]:  # an upstream's error already has it
                    message["headers"].append(told)
            if self._closes:
                message["headers"].append((b"connection", b"close"))
        return self._send(message)
