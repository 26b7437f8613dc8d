"""Runs work of a store that continues even if its caller is cancelled."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from cacheproxy.errors import StoreError


class Shielded:
    """The tasks of such work; those still running when the store is closed are cancelled."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[int]] = set()

    async def run(self, work: Coroutine[Any, Any, int]) -> int:
        """Return the result of the work; cancelling the caller does not stop it.

        Raises:
            StoreError: the work was cancelled because the store was closed.
        """
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise StoreError("the store was closed before the work was finished") from None
            raise

    async def cut_short(self) -> None:
        """Cancel the tasks that are still running."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _forget(self, task: asyncio.Task[int]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # the caller may have been cancelled
