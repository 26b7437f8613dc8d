"""The two tiers that find an entry by its key: the hot tier, then the exact tier behind it."""

from collections.abc import Sequence
from typing import Generic, NamedTuple, TypeVar

from cacheproxy.concurrency.parts import in_parts
from cacheproxy.records import Record
from cacheproxy.stores.purges import Purges
from cacheproxy.tiers.exact import ExactTier
from cacheproxy.tiers.hot import HotEntry, HotTier

R = TypeVar("R", bound=Record)


class Found(NamedTuple, Generic[R]):
    """A record and, if the hot tier holds it, its entry there."""

    record: R
    hot_entry: HotEntry[R] | None


class KeyedTiers(Generic[R]):
    """Lookups by key; a record that the exact tier finds is put into the hot tier.

    Attributes:
        hot: the hot tier.
    """

    def __init__(self, hot: HotTier[R], exact: ExactTier[R], purges: Purges) -> None:
        self.hot = hot
        self._exact = exact
        self._purges = purges

    async def from_exact(self, namespace_id: str, keys: Sequence[bytes]) -> list[Found[R] | None]:
        """Return the exact tier's record of each key, in order; one store call at most."""
        since = self._purges.moment
        records = await self._exact.get_many(namespace_id, keys)
        found: list[Found[R] | None] = []

        def keep(part: Sequence[R | None]) -> None:
            found.extend([None if one is None else self._found(one, since) for one in part])

        await in_parts(records, keep)
        return found

    async def one_from_exact(self, namespace_id: str, key: bytes) -> Found[R] | None:
        """Return the exact tier's record of a key."""
        since = self._purges.moment
        record = await self._exact.get(namespace_id, key)
        return None if record is None else self._found(record, since)

    def from_writeback(self, namespace_id: str, key: bytes) -> Found[R] | None:
        """Return the key's record if it is still in the write-back queue."""
        record = self._exact.pending(namespace_id, key)
        return None if record is None else self._found(record, self._purges.moment)

    def _found(self, record: R, since: int) -> Found[R]:
        return Found(record, self.hot.put(record, since))
