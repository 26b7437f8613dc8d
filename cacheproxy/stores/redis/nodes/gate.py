"""The gate before one node of a cluster: nobody waits for a node that does not answer.

`breaker` has the rules. While a gate is shut, questions are not asked, and the node is tested in
the background. Exact lookups and searches have a gate each: a slow search must not switch exact
lookups off.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from cacheproxy.concurrency.background import stop_tasks
from cacheproxy.concurrency.breaker import Breaker, BreakerPolicy
from cacheproxy.errors import StoreError

_log = logging.getLogger(__name__)

T = TypeVar("T")


class Gate:
    """Calls of one kind of one node; used from one event loop."""

    def __init__(self, name: str, test: Callable[[], Awaitable[object]]) -> None:
        """Make an open gate.

        Args:
            name: of the node and the kind of calls, for the log.
            test: finds out whether the node answers; raises `StoreError` or `TimeoutError`.
        """
        self._name = name
        self._test = test
        self._breaker = Breaker(BreakerPolicy(), random.random)
        self._testing: asyncio.Task[None] | None = None

    @property
    def is_open(self) -> bool:
        """Whether calls may be made."""
        return self._breaker.state == "closed"

    async def pass_through(self, call: Callable[[], Awaitable[T]], timeout_s: float) -> T:
        """Return the result of a call, which an open gate lets pass.

        Raises:
            StoreError: it failed, or took longer than `timeout_s`.
        """
        began_at = time.monotonic()
        try:
            async with asyncio.timeout(timeout_s):
                answer = await call()
        except (StoreError, TimeoutError) as error:
            if isinstance(error, StoreError) and error.kind == "invalid":
                raise  # the call was wrong, and the node answered
            self._failed(began_at)
            if isinstance(error, TimeoutError):
                raise StoreError("Redis: no reply of a node in time", "timeout") from error
            raise
        self._breaker.succeeded(time.monotonic())
        return answer

    async def close(self) -> None:
        """Stop testing whether the node answers."""
        await stop_tasks(self._testing)

    def _failed(self, began_at: float) -> None:
        was_open = self.is_open
        self._breaker.failed(time.monotonic(), began_at=began_at)
        if was_open and not self.is_open and self._testing is None:
            _log.warning("a node of the cluster does not answer and is left out: %s", self._name)
            self._testing = asyncio.create_task(self._test_until_open())

    async def _test_until_open(self) -> None:
        try:
            while not self.is_open:
                await asyncio.sleep(max(self._breaker.probe_at - time.monotonic(), 0.0))
                began_at = time.monotonic()
                if not self._breaker.begin_probe(began_at):
                    continue
                try:
                    await self._test()
                except (StoreError, TimeoutError):
                    self._breaker.failed(time.monotonic(), began_at=began_at)
                else:
                    self._breaker.succeeded(time.monotonic())
            _log.info("a node of the cluster answers again: %s", self._name)
        finally:
            self._testing = None
