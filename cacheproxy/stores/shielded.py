"""Work of a store that continues if its caller is cancelled, such as a purge."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from cacheproxy.concurrency.background import stop_tasks
from cacheproxy.errors import StoreError


class Shielded:
    """The tasks of such work; closing the store cancels those that still run."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[int]] = set()

    async def run(self, work: Coroutine[Any, Any, int]) -> int:
        """Return the result of the work, which continues if the caller is cancelled.

        Raises:
            StoreError: the store was closed before the work was done.
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
        """Cancel the tasks that still run."""
        await stop_tasks(*self._tasks)

    def _forget(self, task: asyncio.Task[int]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # retrieved here, as the caller may have left
