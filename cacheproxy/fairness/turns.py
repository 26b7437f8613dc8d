"""Whose turn it is: each owner's things in their order, owners by what they have had so far.

Start-time fair queueing (Goyal, Vin and Cheng, 1996) where costs are known only afterwards. An
owner that was away does not catch up: it goes on from what the one served last had had.
"""

from collections import deque
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")


class Turn(NamedTuple, Generic[T]):
    """What is next, and whose it is."""

    owner: str
    thing: T


class Turns(Generic[T]):
    """Things that wait for their turn; the caller serialises all calls but `charge`."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[T]] = {}
        self._had: dict[str, float] = {}  # as many as there are tenants
        self._now = 0.0

    def put(self, owner: str, thing: T) -> None:
        """Add a thing behind the owner's others."""
        waiting = self._waiting.get(owner)
        if waiting is None:
            waiting = self._waiting[owner] = deque()
            self._had[owner] = max(self._had.get(owner, 0.0), self._now)
        waiting.append(thing)

    def __bool__(self) -> bool:
        """Return whether anything waits."""
        return bool(self._waiting)

    def peek(self) -> Turn[T]:
        """Return what is next; something must be waiting."""
        owner = self._owner()
        return Turn(owner, self._waiting[owner][0])

    def pop(self) -> Turn[T]:
        """Remove and return what is next; something must be waiting."""
        owner = self._owner()
        self._now = self._had[owner]
        waiting = self._waiting[owner]
        thing = waiting.popleft()
        if not waiting:
            del self._waiting[owner]
        return Turn(owner, thing)

    def _owner(self) -> str:
        if len(self._waiting) > 1:
            return min(self._waiting, key=self._had.__getitem__)
        return next(iter(self._waiting))

    def charge(self, owner: str, cost: float) -> None:
        """Account for what an owner has had."""
        self._had[owner] += cost
