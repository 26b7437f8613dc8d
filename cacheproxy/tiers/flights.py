"""Request coalescing: requests for the same entry share one call of inference or of an upstream.

A flight is one such call. It belongs to no single request: a client that disconnects does not
affect the others, and the call is cancelled only when the last waiter has left. A flight that began
before a purge of its entry is not joined by later requests.
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
        generation: the generation of the newest purge known at that moment.
        record: the record of its result, once the tiers have it.
        is_stored: whether that record is in the write-back queue or stored.
    """

    def __init__(self, purges: Purges) -> None:
        self.since = purges.moment
        self.generation = purges.generation
        self.record: Record | None = None
        self.is_stored = False

    @property
    def can_be_joined(self) -> bool:
        """Whether another request may join it."""
        raise NotImplementedError


F = TypeVar("F", bound=Flight)


class Flights(Generic[F]):
    """The flights that can be joined, by key and form; owned by the event loop.

    `form` distinguishes calls for the same entry whose results cannot be shared (whole, streamed).
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
        """Make a flight available to join; it replaces an older one."""
        self._flights[key, form] = flight

    def remove(self, flight: F, key: bytes, form: str = "") -> None:
        """Stop further requests from joining a flight."""
        if self._flights.get((key, form)) is flight:
            del self._flights[key, form]


class FutureFlight(Flight, Generic[T]):
    """A flight whose result arrives in one piece, through a future."""

    def __init__(self, future: asyncio.Future[T], purges: Purges) -> None:
        super().__init__(purges)
        self.future = future
        self._waiters = 0

    @property
    def can_be_joined(self) -> bool:
        """Whether it is not cancelled; a cancelled future stays in the map for one loop turn."""
        return not self.future.cancelled()

    def hold(self) -> None:
        """Add a waiter; each must be released."""
        self._waiters += 1

    def release(self) -> None:
        """Remove a waiter; removing the last one cancels an unfinished call."""
        self._waiters -= 1
        if not self._waiters:
            self.future.cancel()


async def wait_for_all(flights: Sequence[FutureFlight[Any]]) -> None:
    """Wait until all flights, which the caller holds, are done, failed ones included."""
    if not flights:
        return
    all_done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    left = len(flights)

    def one_done(_: asyncio.Future[Any]) -> None:
        nonlocal left
        left -= 1
        if not left and not all_done.done():
            all_done.set_result(None)

    # `asyncio.wait` takes twice the time of this (19 and 9.5 us for one flight, measured).
    for flight in flights:
        flight.future.add_done_callback(one_done)
    await all_done


def release_all(flights: Iterable[FutureFlight[Any]]) -> None:
    """Remove a waiter from each flight."""
    for flight in flights:
        flight.release()
