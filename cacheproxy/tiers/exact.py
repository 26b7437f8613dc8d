"""The exact tier: the entry whose key is the request's own, from the write-back queue or the store.

Every record is checked to be whole and to belong to the key that was asked for; what is not is a
miss, and the inference that follows overwrites it.
"""

from collections.abc import Sequence

from cacheproxy.errors import RecordError
from cacheproxy.metrics import Metrics
from cacheproxy.records import EmbeddingRecord, unpack
from cacheproxy.tiers.guard import StoreGuard
from cacheproxy.tiers.writeback import WriteBack


class ExactTier:
    """Lookups by key for one model's embeddings."""

    def __init__(
        self, store: StoreGuard, writeback: WriteBack, *, dimensions: int, metrics: Metrics
    ) -> None:
        self._store = store
        self._writeback = writeback
        self._dimensions = dimensions
        self._record_errors = metrics.record_errors

    async def get_many(
        self, namespace_id: str, keys: Sequence[bytes]
    ) -> list[EmbeddingRecord | None]:
        """Return each key's record, in the order of the keys; one store call at most."""
        records = [self.pending(namespace_id, key) for key in keys]
        asked = [i for i, record in enumerate(records) if record is None]
        if asked:
            found = await self._store.get_many([keys[i] for i in asked])
            for i, data in zip(asked, found, strict=True):
                if data is not None:
                    records[i] = self._decode(namespace_id, keys[i], data)
        return records

    def pending(self, namespace_id: str, key: bytes) -> EmbeddingRecord | None:
        """Return the key's record if it is still on its way into the store."""
        data = self._writeback.get(key)
        return None if data is None else self._decode(namespace_id, key, data)

    def _decode(self, namespace_id: str, key: bytes, data: bytes) -> EmbeddingRecord | None:
        try:
            record = unpack(data, namespace_id=namespace_id, dimensions=self._dimensions)
        except RecordError:
            self._record_errors.inc()
            return None
        if record.key != key:
            self._record_errors.inc()
            return None
        return record
