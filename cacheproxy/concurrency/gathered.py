"""Lookups that wait for a thread, made as one: each hand-over to a thread has its price."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


@dataclass(slots=True, eq=False)
class _Batch(Generic[T, R]):
    """What one job takes along.

    Attributes:
        callers: their items and futures, in the order of the results.
        has_begun, has_ended: of the job, told by its thread.
        is_abandoned: whether the caller that awaited the job has gone.
    """

    callers: list[tuple[Sequence[T], asyncio.Future[Sequence[R]]]] = field(default_factory=list)
    results: Sequence[R] = ()
    has_begun: bool = False
    has_ended: bool = False
    is_abandoned: bool = False


class Gathered(Generic[T, R]):
    """Looks up the items of many callers in one call on a thread: of all who came until it began.

    Nothing waits in order to be gathered: a job is asked for at once, and takes along what comes
    until the thread gets round to it. It belongs to one event loop.
    """

    def __init__(
        self,
        run: Callable[[Callable[..., None]], Awaitable[None]],
        call: Callable[..., Sequence[R]],
        *,
        most: int,
    ) -> None:
        """Prepare for up to `most` items a call.

        `run` runs a job on the thread, with arguments of its own. `call` gets these and the items,
        and returns a result for each item; it may be made again with the same items.
        """
        self._run = run
        self._call = call
        self._most = most
        self._waiting: deque[tuple[Sequence[T], asyncio.Future[Sequence[R]]]] = deque()
        self._is_asked = False  # a job will begin that takes what waits
        self._tasks: set[asyncio.Task[None]] = set()

    async def __call__(self, items: Sequence[T]) -> Sequence[R]:
        """Return a result for each of the items, at most `most`; raise what the call raised."""
        future: asyncio.Future[Sequence[R]] = asyncio.get_running_loop().create_future()
        self._waiting.append((items, future))
        if not self._is_asked:
            try:
                await self._ask()
            except asyncio.CancelledError:
                future.cancel()
                raise
        return await future

    async def _ask(self) -> None:
        """Have a job run for all who wait when it begins."""
        loop = asyncio.get_running_loop()
        batch = _Batch[T, R]()

        def job(*context: Any) -> None:
            self._is_asked = False  # before any is taken: who comes later asks again
            batch.has_begun = True
            items = self._take(batch)
            try:
                batch.results = self._call(*context, items) if items else ()
                batch.has_ended = True
            finally:
                if batch.is_abandoned:
                    with suppress(RuntimeError):  # the loop has ended, and all callers with it
                        loop.call_soon_threadsafe(self._again, batch)

        self._is_asked = True
        try:
            await self._run(job)
        except asyncio.CancelledError:
            batch.is_abandoned = True
            if batch.has_ended:
                self._answer(batch)
            elif not batch.has_begun:
                self._is_asked = False
                self._go_on()
            raise
        except Exception as error:
            if not batch.has_begun:  # there is no connection, say: that concerns all who wait
                self._is_asked = False
                self._take(batch)
            for _, future in batch.callers:
                if not future.done():
                    future.set_exception(error)
        else:
            self._answer(batch)
        self._go_on()

    def _take(self, batch: _Batch[T, R]) -> list[T]:
        items: list[T] = []
        while self._waiting and len(items) + len(self._waiting[0][0]) <= self._most:
            caller = self._waiting.popleft()
            if not caller[1].done():  # else it has gone
                batch.callers.append(caller)
                items += caller[0]
        return items

    def _answer(self, batch: _Batch[T, R]) -> None:
        start = 0
        for items, future in batch.callers:
            if not future.done():
                future.set_result(batch.results[start : start + len(items)])
            start += len(items)

    def _again(self, batch: _Batch[T, R]) -> None:
        """Ask again for callers whose results nobody awaited."""
        self._waiting.extend(caller for caller in batch.callers if not caller[1].done())
        self._go_on()

    def _go_on(self) -> None:
        """Ask for those whom no job will take: one took its fill, or was dropped."""
        if self._waiting and not self._is_asked:
            task = asyncio.create_task(self._ask())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
