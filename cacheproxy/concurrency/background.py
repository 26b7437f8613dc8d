"""Background tasks: a bound on how many run, and one way to stop them."""

import asyncio
from collections.abc import Coroutine
from typing import Any


async def stop_tasks(*tasks: asyncio.Task[Any] | None) -> None:
    """Cancel the tasks and wait until all have ended; None stands for one that never started.

    Errors that tasks ended with are not raised here.
    """
    started = [task for task in tasks if task is not None]
    for task in started:
        task.cancel()
    if started:
        await asyncio.wait(started)


class BackgroundTasks:
    """Tasks of one owner, on its event loop; a task that ends is forgotten."""

    def __init__(self, most: int | None = None) -> None:
        """Allow `most` tasks at the same time; None: any number."""
        self._most = most
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        """Return how many run."""
        return len(self._tasks)

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
        await stop_tasks(*self._tasks)
