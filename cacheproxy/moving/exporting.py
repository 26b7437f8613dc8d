"""Writes the entries and the evidence of a store into a file, beside the servers that use it."""

import time
from collections.abc import Callable, Collection
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np

import cacheproxy
from cacheproxy.errors import ConfigError
from cacheproxy.ingest.outputs import replaced
from cacheproxy.keys import NAMESPACE_ID_CHARACTERS, Hashed, hex_id
from cacheproxy.moving.file import Head, MovedEntry, MovedEvidence, MovedPurge, MoveWriter
from cacheproxy.stores.protocol import Entry, Store
from cacheproxy.thresholds.sharing import evidence_name

_PRIVATE = 0o600

_LOOK_AGAIN_S = 600.0
"""Between two looks at the notes of purges, which stores keep for an hour."""

_NAMESPACE = slice(4, 4 + NAMESPACE_ID_CHARACTERS // 2)
"""Where a record names its namespace (`records.OWNER`)."""

Encrypt = Callable[[bytes, bytes], bytes]
"""Returns an entry's record as it is to stand in the file, given the entry's key and the record."""


@dataclass(slots=True)
class Exported:
    """What was written so far.

    Attributes:
        unknown: entries whose record does not name their namespace, which are left out.
    """

    entries: int = 0
    evidence: int = 0
    unknown: int = 0
    namespaces: set[str] = field(default_factory=set)


async def export(
    store: Store,
    path: Path,
    *,
    namespace_ids: Collection[str] | None,
    evidence: Collection[tuple[str, str]],
    encrypt: Encrypt | None,
    report: Callable[[Exported], None] = lambda _: None,
    now: Callable[[], float] = time.time,
) -> Exported:
    """Write a file; it appears at its path when it is complete.

    Args:
        store: it must be open.
        path: of the file.
        namespace_ids: whose entries; None for all.
        evidence: fingerprints and kinds of the evidence to look for.
        encrypt: encrypts records, or None.
        report: called now and then.
        now: Unix time, seconds.

    Raises:
        ConfigError: the file cannot be written.
        StoreError: the store did not answer.
    """
    done = Exported(namespaces=set(namespace_ids or ()))
    head = Head(cacheproxy.__version__, now(), encrypt is not None)
    try:
        with replaced(path, _PRIVATE) as file:
            writer = MoveWriter(file, head)
            purges = _Purges(store, writer)
            entries = cast(Any, store.scan(namespace_ids))
            async with aclosing(entries):
                async for part in entries:
                    for entry in part:
                        moved = _moved(entry, encrypt)
                        if moved is None:
                            done.unknown += 1
                            continue
                        writer.write(moved)
                        done.namespaces.add(moved.namespace_id)
                    done.entries = writer.entries
                    report(done)
                    await purges.look()
            for fingerprint, kind in evidence:
                for namespace_id in sorted(done.namespaces):
                    state = await store.read_state(evidence_name(fingerprint, kind, namespace_id))
                    if state is not None:
                        writer.write(MovedEvidence(fingerprint, kind, namespace_id, state))
                        done.evidence += 1
            await purges.look(is_last=True)
            writer.end()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from None
    return done


class _Purges:
    """Writes down what is purged during an export: it may be in the file already."""

    def __init__(self, store: Store, writer: MoveWriter) -> None:
        self._store = store
        self._writer = writer
        self._generation = store.purges.generation
        self._looked_at = time.monotonic()

    async def look(self, *, is_last: bool = False) -> None:
        """Look for purges, if it is time."""
        if not is_last and time.monotonic() - self._looked_at < _LOOK_AGAIN_S:
            return
        self._looked_at = time.monotonic()
        for note in await self._store.purged_since(self._generation):
            self._writer.write(MovedPurge(note.generation, note.namespace, note.tag, note.key))
            self._generation = max(self._generation, note.generation)


def _moved(entry: Entry, encrypt: Encrypt | None) -> MovedEntry | None:
    partition, namespace_id = entry.partition, entry.partition.namespace_id
    if isinstance(namespace_id, Hashed):
        namespace_id = entry.record[_NAMESPACE].hex()
        if hex_id(namespace_id) != partition.namespace_id:
            return None
    return MovedEntry(
        key=entry.key,
        namespace_id=namespace_id,
        model_id=partition.model_id,
        context=str(partition.context),
        record=encrypt(entry.key, entry.record) if encrypt else entry.record,
        expires_at=entry.expires_at,
        tags=[str(tag) for tag in entry.tags],
        probe=b"" if entry.probe is None else entry.probe.astype(np.dtype("<f4")).tobytes(),
        generation=entry.generation,
    )
