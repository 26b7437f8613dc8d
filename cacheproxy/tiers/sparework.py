"""Background work, such as checks of semantic hits, done while inference is idle.

Tenants take turns, and none takes all the places in the queue.

No request waits for it. A piece of work that fails is counted and logged, and the next one follows:
hits that went unchecked for good would leave the promised error rate unguarded.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable
from typing import Any

from cacheproxy.concurrency.background import stop_tasks
from cacheproxy.fairness.owner import current_owner, work_for
from cacheproxy.fairness.pool import FairPool
from cacheproxy.fairness.turns import Turns
from cacheproxy.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

_LOOK_S = 0.005
"""Pause before inference is looked at again; one of its groups takes about as long."""

_LOG_EVERY_S = 10.0

Begin = Callable[[], "asyncio.Future[Any] | None"]


class SpareWork:
    """A bounded queue of work; each piece begins once `may_begin` says that it delays no request.

    Attributes:
        may_begin: returns whether that is so at the moment.
    """

    def __init__(
        self,
        may_begin: Callable[[], bool],
        *,
        most: int,
        metrics: Metrics,
        rest_s: float = 0.0,
    ) -> None:
        """Prepare an empty queue.

        Args:
            may_begin: as the attribute.
            most: pieces that may wait.
            metrics: counts the pieces that could not begin.
            rest_s: the pause after each piece, seconds.
        """
        self._rest_s = rest_s
        self.may_begin = may_begin
        self._places = FairPool(most)
        self._errors = metrics.semantic_check_errors
        self._waiting = Turns[Begin]()
        self._came = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._is_busy = False
        self._logged_at = -math.inf

    def __len__(self) -> int:
        """Return how many pieces are waiting or being done."""
        return self._places.taken + self._is_busy

    @property
    def is_full(self) -> bool:
        """Whether there is no room for more from the current owner."""
        return not self._places.has_room(current_owner())

    def start(self) -> None:
        """Begin to work in the background of the running event loop."""
        self._task = asyncio.create_task(self._run(), name="spare-work")

    async def stop(self) -> None:
        """Stop; pieces that are still waiting are dropped."""
        await stop_tasks(self._task)

    def put(self, begin: Begin) -> None:
        """Queue work; `begin` returns its future, or None if it is no longer needed.

        The caller has checked that there is room.
        """
        owner = current_owner()
        self._places.take(owner)
        self._waiting.put(owner, begin)
        self._came.set()

    async def _run(self) -> None:
        while True:
            await self._came.wait()
            while self._waiting:
                try:
                    await self._do_next()
                except Exception:
                    self._report_error()
                    await asyncio.sleep(_LOOK_S)
            self._came.clear()

    async def _do_next(self) -> None:
        if not self.may_begin():
            await asyncio.sleep(_LOOK_S)
            return
        owner, begin = self._waiting.pop()
        self._waiting.charge(owner, 1)
        self._places.give_back(owner)
        work_for(owner)
        begun = begin()
        if begun is None:
            return
        self._is_busy = True
        try:
            await asyncio.wait({begun})
        finally:
            self._is_busy = False
        if self._rest_s:
            await asyncio.sleep(self._rest_s)

    def _report_error(self) -> None:
        self._errors.inc()
        now = time.monotonic()
        if now - self._logged_at >= _LOG_EVERY_S:
            self._logged_at = now
            logger.exception("a background check could not begin")
