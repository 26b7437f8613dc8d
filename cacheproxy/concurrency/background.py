"""Background tasks, bounded in number, which can be stopped together."""

import asyncio
from collections.abc import Coroutine
from typing import Any


class BackgroundTasks:
    """Tasks of one owner, on its event loop; a task that ends is forgotten."""

    def __init__(self, most: int | None = None) -> None:
        """Allow `most` tasks at the same time; None: any number."""
        self._most = most
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def is_full(self) -> bool:
        """Whether the maximum number of tasks is running."""
        return self._most is not None and len(self._tasks) >= self._most

    def start(self, work: Coroutine[Any, Any, None], name: str | None = None) -> asyncio.Task[None]:
        """Run work; the caller has checked that there is room."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def stop(self) -> None:
        """Cancel all tasks and wait until they have ended."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
