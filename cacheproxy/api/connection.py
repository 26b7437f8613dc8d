"""Watching over one exchange: a body that does not come, a client that has left.

uvicorn tells of a closed connection only to who asks for the next message. Asking costs a task, so
that it begins only when a request has taken a while: shorter work is done sooner than dropped. Both
watches share one timer, as most exchanges end before it rings.
"""

import asyncio
from types import TracebackType

from starlette.types import Receive

from cacheproxy.errors import BadRequest

_PATIENCE_S = 0.05


class ClientGone(Exception):
    """The client closed the connection before it had its answer."""


class Watched:
    """An `async with` block around reading a body and working on it.

    It ends with `BadRequest` (408) when the body takes longer than `body_timeout_s`, and with
    `ClientGone` when the client leaves after `body_has_come`.
    """

    __slots__ = (
        *("_body_timeout_s", "_came", "_ended", "_receive"),
        *("_timer", "_waits", "_watcher", "_worker"),
    )

    def __init__(self, receive: Receive, *, body_timeout_s: float) -> None:
        self._receive = receive
        self._body_timeout_s = body_timeout_s
        self._waits = True
        self._came: asyncio.Event | None = None
        self._ended: Exception | None = None
        self._watcher: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Watched":
        """Begin to watch, after a while."""
        self._worker = asyncio.current_task()
        self._timer = asyncio.get_running_loop().call_later(_PATIENCE_S, self._begin)
        return self

    def body_has_come(self) -> None:
        """Say that the whole body has been read; from now on the client may be seen to leave."""
        self._waits = False
        if self._came is not None:
            self._came.set()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop watching; raise what was seen in place of the cancellation that it caused."""
        self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()
        if self._ended is not None and self._worker is not None and self._worker.uncancel() == 0:
            raise self._ended from None

    def _begin(self) -> None:
        self._watcher = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        if self._waits:
            self._came = asyncio.Event()
            try:
                await asyncio.wait_for(self._came.wait(), self._body_timeout_s - _PATIENCE_S)
            except TimeoutError:
                message = f"the request body did not come within {self._body_timeout_s:g} s"
                self._end(BadRequest(message, status=408))
                return
        if (await self._receive())["type"] == "http.disconnect":
            self._end(ClientGone())

    def _end(self, error: Exception) -> None:
        if self._worker is not None:
            self._ended = error
            self._worker.cancel()
