"""The exact tier: the entry whose key is the request's own, from the write-back queue or the store.

Every record is checked for integrity and against the requested key. A record that fails the check
counts as a miss, and the inference that follows overwrites it.
"""

from collections.abc import Sequence
from typing import Generic, TypeVar

from cacheproxy.concurrency.parts import in_parts
from cacheproxy.records import Record
from cacheproxy.tiers.guard import StoreGuard
from cacheproxy.tiers.reader import RecordReader
from cacheproxy.tiers.writeback import WriteBack

R = TypeVar("R", bound=Record)


class ExactTier(Generic[R]):
    """Lookups by key of one route's records."""

    def __init__(self, store: StoreGuard, writeback: WriteBack, reader: RecordReader[R]) -> None:
        self._store = store
        self._writeback = writeback
        self._reader = reader

    async def get_many(self, namespace_id: str, keys: Sequence[bytes]) -> list[R | None]:
        """Return each key's record, in the order of the keys; one store call at most."""
        records: list[R | None] = []

        def from_queue(part: Sequence[bytes]) -> None:
            records.extend([self.pending(namespace_id, key) for key in part])

        def read(part: Sequence[tuple[int, bytes | None]]) -> None:
            for i, data in part:
                if data is not None:
                    records[i] = self._reader.read(data, namespace_id=namespace_id, key=keys[i])

        await in_parts(keys, from_queue)
        asked = [i for i, record in enumerate(records) if record is None]
        if asked:
            found = await self._store.get_many([keys[i] for i in asked])
            await in_parts(list(zip(asked, found, strict=True)), read)
        return records

    async def get(self, namespace_id: str, key: bytes) -> R | None:
        """Return one key's record, as `get_many`."""
        record = self.pending(namespace_id, key)
        if record is not None:
            return record
        data = await self._store.get(key)
        return None if data is None else self._reader.read(data, namespace_id=namespace_id, key=key)

    def pending(self, namespace_id: str, key: bytes) -> R | None:
        """Return the key's record if it is still in the write-back queue."""
        data = self._writeback.get(key)
        if data is None:
            return None
        return self._reader.read(data, namespace_id=namespace_id, key=key)
