"""Decodes stored bytes into a record that may be served, or counts a miss."""

from typing import Generic, Protocol, TypeVar

from cacheproxy.errors import RecordError
from cacheproxy.records import Record
from cacheproxy.telemetry.metrics import Metrics

R_co = TypeVar("R_co", bound=Record, covariant=True)


class Unpack(Protocol[R_co]):
    """Decodes one route's records."""

    def __call__(self, data: bytes, *, namespace_id: str, key: bytes) -> R_co:
        """Return the record, checked to be whole and of this namespace's key.

        Raises:
            RecordError: the bytes are no such record.
        """


class RecordReader(Generic[R_co]):
    """Reads one route's records."""

    def __init__(self, unpack: Unpack[R_co], metrics: Metrics) -> None:
        self._unpack = unpack
        self._errors = metrics.undecodable_records

    def read(self, data: bytes, *, namespace_id: str, key: bytes) -> R_co | None:
        """Return the record if it is whole and of this namespace's key."""
        try:
            return self._unpack(data, namespace_id=namespace_id, key=key)
        except RecordError:
            self._errors.inc()
            return None
