"""How many requests of a tenant are worked on at a time while other tenants are there, too.

Queues and threads serve tenants in turn, but what a request of another tenant has begun is not
taken back: with 64 misses of a flood under way, each step of somebody's miss came behind some of
theirs, and the miss took six times as long as alone; with 4 it takes twice as long. As many as keep
all cores busy are enough for a flood. Who is alone has no such limit.
"""

import asyncio
import time
from collections.abc import Callable

from cacheproxy.fairness.owner import current_owner

_THERE_S = 1.0
"""How long a tenant is there after a request."""


class Seats:
    """Places at the local models, for the requests of one event loop."""

    def __init__(self, most: int, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Prepare `most` places for each owner while others are there."""
        self._most = most
        self._monotonic = monotonic
        self._taken: dict[str, int] = {}
        self._waiting: dict[str, dict[asyncio.Future[None], None]] = {}  # in their order
        self._latest, self._latest_at = "", -_THERE_S
        self._others_at = -_THERE_S

    def note(self, owner: str) -> None:
        """Take note that an owner is there."""
        if owner != self._latest:
            self._others_at = self._latest_at
            self._latest = owner
        self._latest_at = self._monotonic()

    async def __aenter__(self) -> None:
        """Wait for a place of the current owner's, and take it."""
        owner = current_owner()
        if owner not in self._waiting and self._has_room(owner):
            self._taken[owner] = self._taken.get(owner, 0) + 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(owner, {})[turn] = None
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._forget(owner, turn)
            else:
                self._leave(owner)
            raise

    async def __aexit__(self, *_: object) -> None:
        """Leave it to those of the owner's who wait, in their order."""
        self._leave(current_owner())

    def _leave(self, owner: str) -> None:
        self._taken[owner] -= 1
        if not self._taken[owner]:
            del self._taken[owner]
        while (waiting := self._waiting.get(owner)) and self._has_room(owner):
            turn = next(iter(waiting))
            self._forget(owner, turn)
            if not turn.done():
                self._taken[owner] = self._taken.get(owner, 0) + 1
                turn.set_result(None)

    def _forget(self, owner: str, turn: asyncio.Future[None]) -> None:
        waiting = self._waiting[owner]
        waiting.pop(turn, None)
        if not waiting:
            del self._waiting[owner]

    def _has_room(self, owner: str) -> bool:
        return self._taken.get(owner, 0) < self._most or self._is_alone(owner)

    def _is_alone(self, owner: str) -> bool:
        at = self._others_at if owner == self._latest else self._latest_at
        return self._monotonic() - at >= _THERE_S
