"""Work that nobody waits for, done one piece at a time while inference has nothing else to do."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

_LOOK_S = 0.005
"""Pause before looking again whether inference is free; its groups take about as long."""

Begin = Callable[[], "asyncio.Future[Any] | None"]


class SpareWork:
    """A bounded queue of work, begun whenever `may_begin` says that it delays nobody.

    Attributes:
        may_begin: returns whether that is so at the moment.
    """

    def __init__(self, may_begin: Callable[[], bool], *, most: int, rest_s: float = 0.0) -> None:
        """Prepare; after each piece rest for so many seconds."""
        self._rest_s = rest_s
        self.may_begin = may_begin
        self._most = most
        self._waiting: deque[Begin] = deque()
        self._came = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._is_busy = False

    def __len__(self) -> int:
        """Return how much is waiting, what is being done included."""
        return len(self._waiting) + self._is_busy

    @property
    def is_full(self) -> bool:
        """Whether there is no room for more."""
        return len(self._waiting) >= self._most

    def start(self) -> None:
        """Begin to work in the background of the running event loop."""
        self._task = asyncio.create_task(self._run(), name="spare-work")

    async def stop(self) -> None:
        """Stop; what is waiting is never done."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    def put(self, begin: Begin) -> None:
        """Queue work; `begin` returns its future, or None if there is nothing to do any more.

        The caller has seen that there is room.
        """
        self._waiting.append(begin)
        self._came.set()

    async def _run(self) -> None:
        while True:
            await self._came.wait()
            while self._waiting:
                if not self.may_begin():
                    await asyncio.sleep(_LOOK_S)
                    continue
                begun = self._waiting.popleft()()
                if begun is not None:
                    self._is_busy = True
                    await asyncio.wait({begun})
                    self._is_busy = False
                    if self._rest_s:
                        await asyncio.sleep(self._rest_s)
            self._came.clear()
