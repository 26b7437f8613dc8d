"""Noticing that a client has left, so that nobody works for it any more.

uvicorn tells of a closed connection only to who asks for the next message. Asking costs a task, so
that it begins only when a request has taken a while: shorter work is done sooner than dropped.
"""

import asyncio
from types import TracebackType

from starlette.types import Receive

_PATIENCE_S = 0.05


class ClientGone(Exception):
    """The client closed the connection before it had its answer."""


class WhileConnected:
    """An `async with` block that ends with `ClientGone` when the client leaves.

    The request's body must have been read to its end.
    """

    __slots__ = ("_gone", "_receive", "_timer", "_watcher", "_worker")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._gone = False
        self._watcher: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        """Begin to watch, after a while."""
        self._worker = asyncio.current_task()
        self._timer = asyncio.get_running_loop().call_later(_PATIENCE_S, self._begin)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop watching; raise `ClientGone` in place of the cancellation that it caused."""
        self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()
        if self._gone and self._worker is not None and self._worker.uncancel() == 0:
            raise ClientGone from error

    def _begin(self) -> None:
        self._watcher = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        message = await self._receive()
        if message["type"] == "http.disconnect" and self._worker is not None:
            self._gone = True
            self._worker.cancel()
