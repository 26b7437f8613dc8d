"""Requests that come again byte for byte: their entry is looked up by its key, without parsing.

The HTTP edge remembers which key a request's bytes led to (`api/repeats.py`). A hit is counted here
as the lookups that it stands for; after a miss the request goes its whole way, which counts.
"""

from collections.abc import Callable
from typing import Generic, Literal, NamedTuple, TypeVar

from cacheproxy.records import Record
from cacheproxy.telemetry.lookup_counts import LookupCounts
from cacheproxy.telemetry.stages import Stages
from cacheproxy.tiers.keyed import Found, KeyedTiers

R = TypeVar("R", bound=Record)


class Repeated(NamedTuple, Generic[R]):
    """What the tiers have for a key that is known from an earlier request.

    Attributes:
        key: of the entry [32 bytes].
        outcome: the tier whose record answers the request, or None.
        found: the record, which may be one that does not answer the request; None: there is none.
        stages_s: the seconds that the lookup took, by stage.
    """

    key: bytes
    outcome: Literal["hot", "exact"] | None
    found: Found[R] | None
    stages_s: dict[str, float]


class RepeatedLookup(Generic[R]):
    """Looks up entries by keys that are known from earlier requests."""

    def __init__(
        self, tiers: KeyedTiers[R], stages: Stages, counts_of: Callable[[R], LookupCounts]
    ) -> None:
        """Prepare; `counts_of` returns the counts of a record's model."""
        self._tiers = tiers
        self._stages = stages
        self._counts_of = counts_of

    async def find(
        self,
        namespace_id: str,
        key: bytes,
        answers: Callable[[R], bool] | None = None,
    ) -> Repeated[R]:
        """Return what the tiers have; `answers` tells whether a record answers the request.

        Without it every record does.
        """
        entry = self._tiers.hot.get(key)
        if entry is not None and (answers is None or answers(entry.record)):
            self._counts_of(entry.record).count("hot", hits=1)
            return Repeated(key, "hot", Found(entry.record, entry), {})
        stages_s: dict[str, float] = {}
        with self._stages.time("exact", stages_s):
            (found,) = await self._tiers.from_exact(namespace_id, [key])
        if found is None or not (answers is None or answers(found.record)):
            return Repeated(key, None, found, stages_s)
        counts = self._counts_of(found.record)
        counts.count("hot", misses=1)
        counts.count("exact", hits=1)
        return Repeated(key, "exact", found, stages_s)
