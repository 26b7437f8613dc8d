"""The outermost ASGI application: routes, and every error as an OpenAI-shaped body."""

import logging
from collections.abc import Sequence

from starlette.exceptions import HTTPException
from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

from cacheproxy.api.connection import ClientGone
from cacheproxy.api.response import send_error
from cacheproxy.errors import ApiError, BadRequest

logger = logging.getLogger(__name__)


class Edge:
    """Serves the routes; what they raise is answered here and nowhere else."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._router = Router(routes, redirect_slashes=False)
        # The router tries one route after the other; the busy ones have fixed paths.
        self._posts = {route.path: route.app for route in routes if route.methods == {"POST"}}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        if scope["type"] != "http":
            raise RuntimeError(f"{scope['type']} is not spoken here")
        app = self._posts.get(scope["path"]) if scope["method"] == "POST" else None
        try:
            if app is not None:
                await app(scope, receive, send)
            else:
                scope["app"] = self  # makes the router raise, not answer, what it does not know
                await self._router(scope, receive, send)
        except ClientGone:
            return
        except ApiError as error:
            await send_error(send, error)
        except HTTPException as error:
            await send_error(send, _unknown(error, scope))
        except Exception:
            # The traceback may name what the code was doing, never what the request held.
            logger.exception("request failed: %s", scope["path"])
            # Where the answer had begun already, uvicorn refuses this and closes the connection.
            await send_error(send, ApiError("internal error", code="internal_error"))


def _unknown(error: HTTPException, scope: Scope) -> ApiError:
    if error.status_code == 405:
        message = f"{scope['method']} is not allowed on this path"
    else:
        message = "there is nothing at this path"
    return BadRequest(message, status=error.status_code, code="not_found")
