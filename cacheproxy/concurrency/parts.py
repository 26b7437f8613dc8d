"""Long work on the event loop, in parts between which other requests have their turn."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import TypeVar

T = TypeVar("T")

_PART = 128
"""Items between two turns of the event loop: a millisecond or two of work at most."""

_TURN_S = 2e-3
"""Work between two turns where items differ."""


async def in_parts(items: Sequence[T], work: Callable[[Sequence[T]], object]) -> None:
    """Call `work` with all items, or with each part of many, in their order."""
    if len(items) <= _PART:
        work(items)
        return
    for start in range(0, len(items), _PART):
        work(items[start : start + _PART])
        await asyncio.sleep(0)


async def in_turns(items: Iterable[T]) -> AsyncIterator[T]:
    """Yield all; after each 2 ms that this and the caller's work took, others have their turn."""
    since = time.perf_counter()
    for item in items:
        yield item
        if time.perf_counter() - since >= _TURN_S:
            await asyncio.sleep(0)
            since = time.perf_counter()
