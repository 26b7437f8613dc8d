"""Long work on the event loop, in parts between which other requests have their turn."""

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")

_PART = 128
"""Items between two turns of the event loop: a millisecond or two of work at most."""


async def in_parts(items: Sequence[T], work: Callable[[Sequence[T]], object]) -> None:
    """Call `work` with all items, or with each part of many, in their order."""
    if len(items) <= _PART:
        work(items)
        return
    for start in range(0, len(items), _PART):
        work(items[start : start + _PART])
        await asyncio.sleep(0)
