"""Watches exchanges for bodies that do not arrive and for clients that disconnect.

uvicorn reports a closed connection only to a caller that awaits the next message. Awaiting it costs
a task, so it starts only once a request has taken a while: shorter work finishes before it could be
cancelled. All exchanges share one timer, because most end before it fires: a timer each would cost
as much as a whole lookup in the hot tier.
"""

import asyncio
from types import TracebackType

from starlette.types import Receive

from cacheproxy.api.request.body_budget import BodyBudget
from cacheproxy.api.request.json_weight import SMALL_BYTES, parsed_bytes
from cacheproxy.errors import BadRequest
from cacheproxy.fairness.meters import Meter

_PATIENCE_S = 0.05
"""Interval between checks of the exchanges; an exchange seen by two checks is watched."""

CLIENT_GONE = 499
"""nginx's status for a client that closed the connection before the answer."""


class ClientGone(Exception):
    """The client closed the connection before the answer."""


class Watch:
    """Watches over the exchanges of one event loop; `budget` is what their bodies may take."""

    def __init__(
        self,
        *,
        body_timeout_s: float,
        budget: BodyBudget | None = None,
        json_elements: int = 1_000_000,
    ) -> None:
        """Prepare; `json_elements` is how many elements the JSON of a body may have."""
        self.json_elements = json_elements
        self.body_timeout_s = body_timeout_s
        self.budget = budget
        self._new: set[Watched] = set()
        self._seen: set[Watched] = set()
        self._is_ticking = False

    def add(self, exchange: "Watched") -> None:
        """Watch the exchange if it takes a while."""
        self._new.add(exchange)
        if not self._is_ticking:
            self._is_ticking = True
            asyncio.get_running_loop().call_later(_PATIENCE_S, self._tick)

    def remove(self, exchange: "Watched") -> None:
        """Forget an exchange that has ended."""
        self._new.discard(exchange)
        self._seen.discard(exchange)

    def _tick(self) -> None:
        for exchange in self._seen:
            exchange.begin()
        self._seen, self._new = self._new, set()
        self._is_ticking = bool(self._seen)
        if self._is_ticking:
            asyncio.get_running_loop().call_later(_PATIENCE_S, self._tick)


class Watched:
    """A `with` block around reading a body and working on it, within one task.

    It ends with `BadRequest` (408) when the body takes longer than the watch's `body_timeout_s`,
    and with `ClientGone` when the client leaves after `body_has_come`. What its body has taken of
    the budget, on the account of `owner`, is given back at its end. A tenant's `meter` counts it as
    in flight, and may refuse it (`Overloaded`).
    """

    __slots__ = (
        *("_came", "_ended", "_meter", "_owner", "_receive", "_taken", "_waits"),
        *("_watch", "_watcher", "_worker"),
    )

    def __init__(
        self, watch: Watch, receive: Receive, owner: str = "", meter: Meter | None = None
    ) -> None:
        self._watch = watch
        self._meter = meter
        self._receive = receive
        self._owner = owner
        self._waits = True
        self._came: asyncio.Event | None = None
        self._ended: Exception | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._taken = 0

    def __enter__(self) -> "Watched":
        """Register with the watch."""
        if self._meter is not None:
            self._meter.enter()
        self._worker = asyncio.current_task()
        self._watch.add(self)
        return self

    def take(self, size: int) -> None:
        """Take bytes for the body from the budget; raises `ApiError`."""
        if self._watch.budget is not None:
            self._watch.budget.take(self._owner, size)
            self._taken += size

    def take_parsed(self, body: bytes) -> None:
        """Take from the budget what a body of JSON needs once it is parsed; raises `ApiError`."""
        if len(body) > SMALL_BYTES:
            size = parsed_bytes(body, most_elements=self._watch.json_elements)
            if size:
                self.take(size)

    def body_has_come(self) -> None:
        """Report that the whole body has been read; from now on a disconnect is detected."""
        self._waits = False
        if self._came is not None:
            self._came.set()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop watching; raise the detected error in place of the cancellation that it caused."""
        self._watch.remove(self)
        if self._meter is not None:
            self._meter.leave()
        if self._taken and self._watch.budget is not None:
            self._watch.budget.give_back(self._owner, self._taken)
        if self._watcher is not None:
            # The cancellation holds the frame of `_see`, and by it this: without a circle it is
            # freed at once. Beside a flood, circles cost a collector pass, 60 ms on the
            # event loop, every five seconds.
            self._watcher.cancel()
            self._watcher = None
        ended, self._ended = self._ended, None
        if ended is not None and self._worker is not None and self._worker.uncancel() == 0:
            try:
                raise ended from None
            finally:
                # A traceback holds this frame, and by it all that was read: without a circle it
                # is freed with the error, not when the garbage collector comes round.
                del ended, error, trace

    def begin(self) -> None:
        """Start watching, because the exchange takes a while."""
        self._watcher = asyncio.create_task(self._see())

    async def _see(self) -> None:
        if self._waits:
            self._came = asyncio.Event()
            timeout_s = self._watch.body_timeout_s
            try:
                await asyncio.wait_for(self._came.wait(), timeout_s - _PATIENCE_S)
            except TimeoutError:
                message = f"the request body did not arrive within {timeout_s:g} s"
                self._end(BadRequest(message, status=408))
                return
        if (await self._receive())["type"] == "http.disconnect":
            self._end(ClientGone())

    def _end(self, error: Exception) -> None:
        if self._worker is not None:
            self._ended = error
            self._worker.cancel()
