"""Work of a store that goes on although whoever asked for it has left."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from cacheproxy.concurrency.background import stop_tasks
from cacheproxy.errors import StoreError


class Shielded:
    """The tasks of such work; those that still run when the store is closed are cut short."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[int]] = set()

    async def run(self, work: Coroutine[Any, Any, int]) -> int:
        """Return what the work gives; a caller that is cancelled does not stop it.

        Raises:
            StoreError: it was cut short.
        """
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise StoreError("the store was closed before the work was done") from None
            raise

    async def cut_short(self) -> None:
        """Cancel what still runs."""
        await stop_tasks(*self._tasks)

    def _forget(self, task: asyncio.Task[int]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whoever asked may have left without it
