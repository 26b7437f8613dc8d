"""What comes back from a store, whoever wrote it: records, evidence, notices, search replies."""

import zlib
from contextlib import suppress

import numpy as np

from cacheproxy.errors import RecordError, StoreError
from cacheproxy.records import pack as pack_embedding
from cacheproxy.records import unpack as unpack_embedding
from cacheproxy.routes.chat.record import pack as pack_completion
from cacheproxy.routes.chat.record import unpack as unpack_completion
from cacheproxy.stores.protocol import Partition
from cacheproxy.stores.purges import Purges
from cacheproxy.stores.redis.entries import entry_name, index_of, read_stored, used_memory
from cacheproxy.stores.redis.index import NAMESPACE_FIELD
from cacheproxy.stores.redis.purging.purges import RedisPurges
from cacheproxy.stores.redis.search import Search
from cacheproxy.thresholds.judged.evidence import Evidence
from cacheproxy.thresholds.ledger import Ledger

_NAMESPACE, _KEY = "ab" * 16, b"k" * 32
_OWNER = bytes.fromhex(_NAMESPACE) + _KEY
_PARTITION = Partition(_NAMESPACE, "f")
_PROBE = np.array([0.6, 0.8], np.float32)
_SIMILARITIES = (0.9, 0.95)


def _whole(magic: bytes, data: bytes) -> bytes:
    """Return the bytes as a record of the right owner whose checksum is right."""
    body = magic + _OWNER + data
    return body + zlib.crc32(body).to_bytes(4, "little")


def embedding_record(data: bytes) -> None:
    """An embedding's record: as it was packed, or a miss."""
    for stored in (data, _whole(b"CPR1", data)):
        for dimensions in (1, 2, 384):
            with suppress(RecordError):
                record = unpack_embedding(
                    stored, namespace_id=_NAMESPACE, key=_KEY, dimensions=dimensions
                )
                assert pack_embedding(record) == stored
                assert np.isfinite(np.frombuffer(record.vector, "<f4")).all()


def completion_record(data: bytes) -> None:
    """A completion's record: as it was packed, or a miss."""
    for stored in (data, _whole(b"CPC2", data)):
        with suppress(RecordError):
            record = unpack_completion(stored, namespace_id=_NAMESPACE, key=_KEY)
            assert pack_completion(record) == stored


def evidence(data: bytes) -> None:
    """Evidence that servers share: of the form of this version, or none."""
    ledger = Ledger.unpack(data, _SIMILARITIES)
    if ledger is not None:
        assert Ledger.unpack(ledger.pack(), _SIMILARITIES) is not None
    found = Evidence.unpack(data)
    if found is not None:
        again = Evidence.unpack(found.pack())
        assert again is not None
        again.add(found)
        again.expire(1e9)


def notice(data: bytes) -> None:
    """A message on the channel of notices: heard, or refused, and the next write still works."""
    purges = Purges()
    purging = RedisPurges(None, purges, "own")  # type: ignore[arg-type]
    with suppress(ValueError):
        purging.hear(data)
    assert 0 <= purges.generation < 2**63
    purging.forbid(_KEY, data[:32], data[32:] or None, 1)


def search_reply(data: bytes) -> None:
    """A reply to a search: neighbours with a score from -1 to 1, or an error that is counted."""
    fields = data.split(b"|")
    index = index_of(_PARTITION, 2)
    purging = RedisPurges(None, Purges(), "own")  # type: ignore[arg-type]
    search = Search(index, _PARTITION, 10, purging)
    namespace = search._namespace if fields[0] == b"own" else fields[0]
    entry = [
        NAMESPACE_FIELD.encode(),
        namespace,
        b"record",
        fields[-1],
        index.field.encode(),
        *fields[1:2],
    ]
    for reply in ([1, b"|".join(fields[2:]), entry], [1, entry_name(_KEY), entry], fields):
        with suppress(StoreError):
            found = search.read(reply, _PROBE)
            assert all(-1 <= one.score <= 1 for one in found.neighbours)
            probes = [np.frombuffer(fields[1], "<f2")] if found.neighbours else []
            assert all(np.isfinite(probe).all() and probe.any() for probe in probes)
    assert read_stored(data).generation >= 0
    used_memory(data)
