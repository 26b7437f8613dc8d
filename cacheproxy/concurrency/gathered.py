"""Calls that would wait for each other, made as one: each hand-over to a thread has its price."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Gathered(Generic[T, R]):
    """Makes calls for items one at a time; all that come meanwhile are the next one.

    A call that finds nothing in progress is made at once: gathering never waits. It belongs to one
    event loop.
    """

    def __init__(self, call: Callable[[Sequence[T]], Awaitable[Sequence[R]]], *, most: int) -> None:
        """Prepare for `call`, which returns a result for each item; `most` items are one call."""
        self._call = call
        self._most = most
        self._is_busy = False
        self._waiting: deque[tuple[Sequence[T], asyncio.Future[Sequence[R]]]] = deque()
        self._task: asyncio.Task[None] | None = None

    async def __call__(self, items: Sequence[T]) -> Sequence[R]:
        """Return a result for each item, at most `most`; raise what the call raised."""
        if self._is_busy:
            future: asyncio.Future[Sequence[R]] = asyncio.get_running_loop().create_future()
            self._waiting.append((items, future))
            return await future
        self._is_busy = True
        try:
            return await self._call(items)
        finally:
            if self._waiting:
                self._task = asyncio.create_task(self._call_for_all())
            else:
                self._is_busy = False

    async def _call_for_all(self) -> None:
        try:
            while self._waiting:
                await self._call_for_some()
        finally:
            self._is_busy = False
            self._task = None

    async def _call_for_some(self) -> None:
        items: list[T] = []
        callers: list[tuple[int, asyncio.Future[Sequence[R]]]] = []
        while self._waiting and len(items) + len(self._waiting[0][0]) <= self._most:
            own, future = self._waiting.popleft()
            if not future.done():  # else its caller has gone
                callers.append((len(own), future))
                items += own
        try:
            results = await self._call(items) if items else ()
        except Exception as error:
            for _, future in callers:
                if not future.done():
                    future.set_exception(error)
            return
        start = 0
        for count, future in callers:
            if not future.done():
                future.set_result(results[start : start + count])
            start += count
