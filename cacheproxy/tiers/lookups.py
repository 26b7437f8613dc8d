"""Lookups by key on their way to the store: some calls at a time, and those that wait together.

Each call costs several turns of the interpreter lock, which a busy inference does not give for
nothing, and CPU beside: lookups that come while as many calls are under way as the store can use
wait for the next, and share it. Long ones go one after the other, beside all others, so that one
text never waits for 2,048.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

Found = list[bytes | None]
Ask = Callable[[Sequence[bytes], float], Awaitable[Found | None]]
"""Asks the store for keys that have waited since a time (monotonic, seconds); None: no answer."""


@dataclass(slots=True)
class _Asked:
    """A lookup that waits for its turn; `at` is monotonic, seconds."""

    keys: Sequence[bytes]
    at: float
    found: asyncio.Future[Found | None]


class KeyLookups:
    """Puts lookups together, and hands each its own part of the answer."""

    def __init__(self, ask: Ask, *, calls_at_once: int, most_keys: int) -> None:
        """Prepare for lookups.

        Args:
            ask: must not raise.
            calls_at_once: calls of `ask`; one more for long lookups.
            most_keys: in one call; a lookup of more is a long one, and has its call to itself.
        """
        self._most_keys = most_keys
        self._short = _Lane(ask, calls_at_once, most_keys)
        self._long = _Lane(ask, 1, 0)

    async def find(self, keys: Sequence[bytes]) -> Found | None:
        """Return each key's record, in the order of the keys; None if the store did not answer."""
        lane = self._short if len(keys) <= self._most_keys else self._long
        return await lane.find(keys)


class _Lane:
    def __init__(self, ask: Ask, calls_at_once: int, most_keys: int) -> None:
        self._ask = ask
        self._calls_at_once = calls_at_once
        self._most_keys = most_keys
        self._waiting: deque[_Asked] = deque()
        self._calls = 0
        self._tasks: set[asyncio.Task[None]] = set()  # kept from the garbage collector

    async def find(self, keys: Sequence[bytes]) -> Found | None:
        at = time.monotonic()
        if not self._calls:
            return await self._find_alone(keys, at)
        found: asyncio.Future[Found | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Asked(keys, at, found))
        self._start()
        return await found

    async def _find_alone(self, keys: Sequence[bytes], at: float) -> Found | None:
        """Ask in the caller's own task: another in between costs 25 us (measured)."""
        self._calls += 1
        try:
            return await self._ask(keys, at)
        finally:
            self._calls -= 1
            self._start()

    def _start(self) -> None:
        """Make another call for those that wait, if there may be one more."""
        if self._waiting and self._calls < self._calls_at_once:
            self._calls += 1
            task = asyncio.ensure_future(self._work())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _work(self) -> None:
        try:
            while self._waiting:
                await self._ask_once()
        finally:
            self._calls -= 1

    async def _ask_once(self) -> None:
        together = [self._waiting.popleft()]
        keys = list(together[0].keys)
        while self._waiting and len(keys) + len(self._waiting[0].keys) <= self._most_keys:
            together.append(self._waiting.popleft())
            keys += together[-1].keys
        answer = await self._ask(keys, together[0].at)
        start = 0
        for asked in together:
            end = start + len(asked.keys)
            if not asked.found.done():  # its caller may have left
                asked.found.set_result(None if answer is None else answer[start:end])
            start = end
