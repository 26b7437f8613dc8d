"""Single-flight: identical misses in flight share one inference.

The inference belongs to nobody who waits for it: a client that leaves takes nothing from the
others, and only when the last has left is the work dropped, if it has not begun.
"""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar

from cacheproxy.records import EmbeddingRecord

T = TypeVar("T")


class Flight(Generic[T]):
    """One piece of work in flight, and how many wait for it.

    Attributes:
        since: its owner's mark of when it began.
        record: what the tiers were given of its result, once it is done.
        is_stored: whether that is on its way into the store.
    """

    __slots__ = ("future", "is_stored", "record", "since", "waiters")

    def __init__(self, future: asyncio.Future[T], since: int = 0) -> None:
        self.future = future
        self.since = since
        self.waiters = 0
        self.record: EmbeddingRecord | None = None
        self.is_stored = False


class SingleFlight(Generic[T]):
    """The flights in the air, by key; owned by the event loop."""

    def __init__(self) -> None:
        self._flights: dict[bytes, Flight[T]] = {}

    def get(self, key: bytes) -> Flight[T] | None:
        """Return the key's flight, if one is in the air."""
        flight = self._flights.get(key)
        # A dropped flight leaves the map only in the event loop's next round.
        return None if flight is None or flight.future.cancelled() else flight

    def begin(self, key: bytes, future: asyncio.Future[T], since: int = 0) -> Flight[T]:
        """Register a future as the key's flight until it is done, in place of an older one."""
        flight = Flight(future, since)
        self._flights[key] = flight
        future.add_done_callback(lambda _: self._end(key, flight))
        return flight

    def hold(self, flight: Flight[T]) -> None:
        """Count one more who wants the flight's result."""
        flight.waiters += 1

    def release(self, flights: Iterable[Flight[T]]) -> None:
        """Count one less for each flight; one that nobody wants any more is cancelled."""
        for flight in flights:
            flight.waiters -= 1
            if not flight.waiters:
                flight.future.cancel()  # without effect on one that is done

    async def wait(self, flights: Sequence[Flight[T]]) -> None:
        """Return when all flights are done, failed ones too; cancelling it leaves each of them."""
        if not flights:
            return
        for flight in flights:
            self.hold(flight)
        try:
            await asyncio.wait({flight.future for flight in flights})
        finally:
            self.release(flights)

    def _end(self, key: bytes, flight: Flight[T]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]
