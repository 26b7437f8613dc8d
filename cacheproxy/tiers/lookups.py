"""Batches lookups by key: a limited number of store calls at a time, shared by waiting lookups.

Each call costs CPU and several acquisitions of the interpreter lock, for which it competes with
inference. Lookups that arrive while the maximum number of calls is in flight therefore wait for the
next call and share it, and so do those that arrive in one turn of the event loop. Long lookups run
one at a time, separately from all others, so that a lookup of one text never waits for one of
2,048. Tenants take turns.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from cacheproxy.fairness.owner import current_owner, work_for
from cacheproxy.fairness.turns import Turns

Found = list[bytes | None]
Ask = Callable[[Sequence[bytes], float], Awaitable[Found | None]]
"""Looks up keys that have waited since a time (monotonic, seconds); None if the store fails."""


@dataclass(slots=True)
class _Asked:
    """A waiting lookup; `at` is its arrival time, monotonic, seconds."""

    keys: Sequence[bytes]
    at: float
    found: asyncio.Future[Found | None]


class KeyLookups:
    """Combines lookups into calls, and returns to each its own records."""

    def __init__(self, ask: Ask, *, calls_at_once: int, most_keys: int) -> None:
        """Prepare for lookups.

        Args:
            ask: makes a store call; must not raise.
            calls_at_once: the most concurrent calls of `ask`, plus one for long lookups.
            most_keys: the most keys in a shared call; a longer lookup gets a call of its own.
        """
        self._most_keys = most_keys
        self._short = _Lane(ask, calls_at_once, most_keys)
        self._long = _Lane(ask, 1, 0)

    def find(self, keys: Sequence[bytes]) -> Awaitable[Found | None]:
        """Return each key's record, in the order of the keys; None if the store did not answer."""
        lane = self._short if len(keys) <= self._most_keys else self._long
        return lane.find(keys)


class _Lane:
    def __init__(self, ask: Ask, calls_at_once: int, most_keys: int) -> None:
        self._ask = ask
        self._calls_at_once = calls_at_once
        self._most_keys = most_keys
        self._waiting = Turns[_Asked]()
        self._calls = 0
        self._is_starting = False  # whether a call was begun that has not taken its lookups yet
        self._were_together = False  # whether several lookups shared the last call
        self._tasks: set[asyncio.Task[None]] = set()  # kept from the garbage collector

    async def find(self, keys: Sequence[bytes]) -> Found | None:
        at = time.monotonic()
        # Where lookups come together, the first waits for the others of its turn of the loop.
        if not (self._calls or self._waiting or self._were_together):
            return await self._find_alone(keys, at)
        found: asyncio.Future[Found | None] = asyncio.get_running_loop().create_future()
        self._waiting.put(current_owner(), _Asked(keys, at, found))
        self._start()
        return await found

    async def _find_alone(self, keys: Sequence[bytes], at: float) -> Found | None:
        """Make the call in the caller's own task; another task would cost 25 us (measured)."""
        self._calls += 1
        try:
            return await self._ask(keys, at)
        finally:
            self._calls -= 1
            self._start()

    def _start(self) -> None:
        """Start another call for the waiting lookups, if the limit allows."""
        if self._waiting and self._calls < self._calls_at_once and not self._is_starting:
            self._is_starting = True
            self._calls += 1
            task = asyncio.ensure_future(self._work())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _work(self) -> None:
        self._is_starting = False
        try:
            while self._waiting:
                await self._ask_once()
        finally:
            self._calls -= 1

    def _next(self) -> _Asked:
        owner, asked = self._waiting.pop()
        self._waiting.charge(owner, len(asked.keys))
        work_for(owner)
        return asked

    async def _ask_once(self) -> None:
        together = [self._next()]
        keys = list(together[0].keys)
        while self._waiting and len(keys) + len(self._waiting.peek().thing.keys) <= self._most_keys:
            together.append(self._next())
            keys += together[-1].keys
        self._were_together = len(together) > 1
        answer = await self._ask(keys, together[0].at)
        start = 0
        for asked in together:
            end = start + len(asked.keys)
            if not asked.found.done():  # its caller may have left
                asked.found.set_result(None if answer is None else answer[start:end])
            start = end
