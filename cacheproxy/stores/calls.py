"""Counts a store's calls in progress, so that closing it can wait for them."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from cacheproxy.errors import StoreError


class Calls:
    """Counts the calls in progress of a store that is open; owned by the event loop."""

    def __init__(self) -> None:
        self._is_open = False
        self._is_closed = False
        self._count = 0
        self._idle = asyncio.Event()

    def check_not_closed(self) -> None:
        """Raise `StoreError` if the store was closed."""
        if self._is_closed:
            raise StoreError("the store is closed")

    def open(self) -> None:
        """Allow calls."""
        self._is_open = True

    def close(self) -> bool:
        """Refuse further calls; return False if they were refused already."""
        is_new = not self._is_closed
        self._is_open, self._is_closed = False, True
        return is_new

    async def ended(self) -> None:
        """Wait until no call is in progress."""
        while self._count:
            self._idle.clear()
            await self._idle.wait()

    @contextmanager
    def one(self) -> Iterator[None]:
        """Count a call as in progress.

        Raises:
            StoreError: the store is not open.
        """
        if not self._is_open:
            raise StoreError("the store is not open")
        self._count += 1
        try:
            yield
        finally:
            self._count -= 1
            if not self._count:
                self._idle.set()
