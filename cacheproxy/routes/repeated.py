"""Requests that come again byte for byte: their entry is looked up by its key, without parsing.

The HTTP edge remembers which key a request's bytes led to (`api/repeated/repeats.py`). A hit is
counted here as the lookups that it stands for; after a miss the request goes its whole way, which
counts.
"""

from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

from cacheproxy.records import Record
from cacheproxy.telemetry.lookup_counts import LookupCounts
from cacheproxy.telemetry.stages import Stages
from cacheproxy.tiers.hot import HotEntry
from cacheproxy.tiers.keyed import Found, KeyedTiers

R = TypeVar("R", bound=Record)


class Repeated(NamedTuple, Generic[R]):
    """What the exact tier has for a key that is known from an earlier request.

    Attributes:
        key: of the entry [32 bytes].
        found: the record, which may be one that does not answer the request; None: there is none.
        is_hit: whether it answers the request.
        stages_s: the seconds that the lookup took, by stage.
    """

    key: bytes
    found: Found[R] | None
    is_hit: bool
    stages_s: dict[str, float]


class RepeatedLookup(Generic[R]):
    """Looks up entries by keys that are known from earlier requests."""

    def __init__(
        self,
        tiers: KeyedTiers[R],
        stages: Stages,
        counts_of: Callable[[R], LookupCounts],
    ) -> None:
        """Prepare.

        Args:
            tiers: the hot and the exact tier.
            stages: the route's.
            counts_of: returns the counts of a record's model.
        """
        self._hot = tiers.hot
        self._tiers = tiers
        self._stages = stages
        self._counts_of = counts_of

    def from_hot(
        self, key: bytes, answers: Callable[[R], bool] | None = None
    ) -> HotEntry[R] | None:
        """Return the hot tier's entry, if its record `answers` the request; nothing waits here."""
        entry = self._hot.get(key)
        if entry is None or (answers is not None and not answers(entry.record)):
            return None
        self._counts_of(entry.record).hot_hit()
        return entry

    async def from_exact(
        self, namespace_id: str, key: bytes, answers: Callable[[R], bool] | None = None
    ) -> Repeated[R]:
        """Return what the exact tier has, and whether it `answers` the request."""
        stages_s: dict[str, float] = {}
        with self._stages.time("exact", stages_s):
            found = await self._tiers.one_from_exact(namespace_id, key)
        if found is None or (answers is not None and not answers(found.record)):
            return Repeated(key, found, False, stages_s)
        counts = self._counts_of(found.record)
        counts.count("hot", misses=1)
        counts.count("exact", hits=1)
        return Repeated(key, found, True, stages_s)
