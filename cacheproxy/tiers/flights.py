"""Request coalescing: requests for the same entry share one call of inference or of an upstream.

A flight is one such call. It belongs to none of the requests that wait for it: a client that leaves
takes nothing from the others, and only when the last one has left is the call cancelled. A flight
that began before a purge of its entry is not joined by later requests.
"""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, Generic, TypeVar

from cacheproxy.records import Record
from cacheproxy.stores.purges import Purges

T = TypeVar("T")


class Flight:
    """A call in flight.

    Attributes:
        since: the moment (`Purges`) at which it began.
        generation: of the newest purge known at that moment.
        record: the record that the tiers were given of its result, once there is one.
        is_stored: whether that record is on its way into the store.
    """

    def __init__(self, purges: Purges) -> None:
        self.since = purges.moment
        self.generation = purges.generation
        self.record: Record | None = None
        self.is_stored = False

    @property
    def can_be_joined(self) -> bool:
        """Whether a further request may wait for it."""
        raise NotImplementedError


F = TypeVar("F", bound=Flight)


class Flights(Generic[F]):
    """The flights that can be joined, by key and form; owned by the event loop.

    `form` tells apart calls for the same entry whose results cannot be shared (whole, streamed).
    """

    def __init__(self, purges: Purges) -> None:
        self._purges = purges
        self._flights: dict[tuple[bytes, str], F] = {}

    def __len__(self) -> int:
        """Return how many flights there are."""
        return len(self._flights)

    def get(self, namespace_id: str, key: bytes, form: str = "") -> F | None:
        """Return the flight to join for a key of a namespace, if there is one."""
        flight = self._flights.get((key, form))
        if flight is None or not flight.can_be_joined:
            return None
        return flight if self._purges.is_untouched(namespace_id, key, flight.since) else None

    def add(self, flight: F, key: bytes, form: str = "") -> None:
        """Let a flight be joined, in place of an older one."""
        self._flights[key, form] = flight

    def remove(self, flight: F, key: bytes, form: str = "") -> None:
        """Let a flight be joined no more."""
        if self._flights.get((key, form)) is flight:
            del self._flights[key, form]


class FutureFlight(Flight, Generic[T]):
    """A flight whose result comes at once, as a future's."""

    def __init__(self, future: asyncio.Future[T], purges: Purges) -> None:
        super().__init__(purges)
        self.future = future
        self._waiters = 0

    @property
    def can_be_joined(self) -> bool:
        """Whether it was not cancelled: a cancelled future leaves the map only a turn later."""
        return not self.future.cancelled()

    def hold(self) -> None:
        """Count one more waiter; each must be released."""
        self._waiters += 1

    def release(self) -> None:
        """Count one waiter less; the last one to go cancels a call that is not done."""
        self._waiters -= 1
        if not self._waiters:
            self.future.cancel()


async def wait_for_all(flights: Sequence[FutureFlight[Any]]) -> None:
    """Return when all flights are done, failed ones included; cancellation leaves each of them."""
    if not flights:
        return
    hold_all(flights)
    try:
        await asyncio.wait({flight.future for flight in flights})
    finally:
        release_all(flights)


def hold_all(flights: Iterable[FutureFlight[Any]]) -> None:
    """Count one more waiter for each flight."""
    for flight in flights:
        flight.hold()


def release_all(flights: Iterable[FutureFlight[Any]]) -> None:
    """Count one waiter less for each flight."""
    for flight in flights:
        flight.release()
