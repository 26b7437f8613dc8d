"""Stored bytes become a record that may be served, or a miss that is counted."""

from cacheproxy.errors import RecordError
from cacheproxy.metrics import Metrics
from cacheproxy.records import EmbeddingRecord, unpack


class RecordReader:
    """Reads one model's records."""

    def __init__(self, dimensions: int, metrics: Metrics) -> None:
        self._dimensions = dimensions
        self._errors = metrics.record_errors

    def read(self, data: bytes, *, namespace_id: str, key: bytes) -> EmbeddingRecord | None:
        """Return the record if it is whole, of this model, and of this namespace's key."""
        try:
            record = unpack(data, namespace_id=namespace_id, key=key, dimensions=self._dimensions)
        except RecordError:
            self._errors.inc()
            return None
        return record
