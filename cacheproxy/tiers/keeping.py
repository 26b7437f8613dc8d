"""Write-back of a fresh result: into the hot tier at once, into the store in the background."""

import asyncio
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from cacheproxy.records import Record
from cacheproxy.stores.protocol import Entry, Partition
from cacheproxy.tiers.flights import Flight
from cacheproxy.tiers.hot import HotTier
from cacheproxy.tiers.writeback import WriteBack

R = TypeVar("R", bound=Record)


class Keeper(Generic[R]):
    """Puts the records of one route into the tiers."""

    def __init__(self, hot: HotTier[R], writeback: WriteBack, pack: Callable[[R], bytes]) -> None:
        """Prepare; `pack` encodes a record for the store."""
        self._hot = hot
        self._writeback = writeback
        self._pack = pack

    def keep(
        self,
        record: R,
        flight: Flight,
        *,
        partition: Partition,
        probe: NDArray[np.float32] | None,
        tags: tuple[str, ...],
        waits_for: asyncio.Future[Any] | None = None,
    ) -> Entry:
        """Keep the record of a flight's result, and set it on the flight; return the store's entry.

        `probe` is the float32 [d] unit vector to index the entry under, or None; if it is still to
        come, by `index`, the store gets the entry when `waits_for` is done. An entry purged since
        the flight began is not kept.
        """
        self._hot.put(record, flight.since)
        flight.record = record
        entry = Entry(
            key=record.key,
            partition=partition,
            record=self._pack(record),
            expires_at=record.expires_at,
            tags=tags,
            probe=probe,
            generation=flight.generation,
        )
        flight.is_stored = self._writeback.put(entry, flight.since, waits_for)
        return entry

    def index(self, entry: Entry, probe: NDArray[np.float32], since: int) -> None:
        """Write an entry again, indexed by its probe, unless it was purged since that moment."""
        self._writeback.put(entry._replace(probe=probe), since)
