"""Writes the entries and the evidence of a file into a store, beside the servers that use it.

The whole file is checked before anything is written. An entry that the store has is left as it is,
so that an import that was interrupted is simply repeated.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from cacheproxy.errors import ConfigError
from cacheproxy.keys import Hashed, hex_id
from cacheproxy.moving.file import Head, MovedEntry, MovedEvidence, MovedPurge, MoveReader
from cacheproxy.server.fingerprints import Served
from cacheproxy.stores.protocol import Entry, Partition, Store
from cacheproxy.stores.purges import PurgeNote
from cacheproxy.thresholds.sharing import LIFE_S, evidence_name

_ENTRIES = 256
"""Entries per call of the store: one transaction, or some 500 kB to Redis."""

Decrypt = Callable[[bytes, bytes], bytes | None]
"""Returns an entry's record, given its key and what stands in the file; None without the key."""


@dataclass(slots=True)
class Imported:
    """What became of a file's records so far.

    Attributes:
        entries: written.
        present: the store had an entry of that key, which stays.
        expired: not live any more.
        purged: named by a purge, during the export in the old store or since then in the new one.
        other_model: of a fingerprint that is not served here.
        undecryptable: without the key.
        evidence: namespaces whose evidence was written.
        evidence_present, evidence_other: the store had some, which stays; of another fingerprint.
    """

    entries: int = 0
    present: int = 0
    expired: int = 0
    purged: int = 0
    other_model: int = 0
    undecryptable: int = 0
    evidence: int = 0
    evidence_present: int = 0
    evidence_other: int = 0

    @property
    def seen(self) -> int:
        """Entries of the file that were looked at."""
        refused = self.other_model + self.undecryptable
        return self.entries + self.present + self.expired + self.purged + refused

    @property
    def refused(self) -> int:
        """Records that can be of no use here."""
        return self.other_model + self.undecryptable + self.evidence_other


class _Purges:
    """Which entries of the file purges name."""

    def __init__(self) -> None:
        self._newest: dict[tuple[str, str | None, bytes | None], int] = {}

    def add(self, notes: Iterable[MovedPurge | PurgeNote]) -> None:
        for note in notes:
            scope = note.namespace, note.tag, note.key
            self._newest[scope] = max(note.generation, self._newest.get(scope, 0))

    def forbid(self, entry: MovedEntry) -> bool:
        if not self._newest:
            return False
        namespace = hex_id(entry.namespace_id)
        scopes: list[tuple[str, str | None, bytes | None]]
        scopes = [(namespace, None, None), (namespace, None, entry.key)]
        scopes += [(namespace, tag, None) for tag in entry.tags]
        return any(self._newest.get(scope, 0) > entry.generation for scope in scopes)


async def import_file(
    store: Store,
    reader: MoveReader,
    served: Served,
    *,
    decrypt: Decrypt | None,
    report: Callable[[str, Imported], None] = lambda _, __: None,
    now: Callable[[], float],
) -> Imported:
    """Check a file and write what it holds into a store; return what became of it.

    Args:
        store: it must be open.
        reader: of the file.
        served: what is served from the store.
        decrypt: decrypts records; None without keys.
        report: called now and then with "check" or "import".
        now: Unix time, seconds.

    Raises:
        ConfigError: the file is cut or altered, or is encrypted and there are no keys.
        StoreError: the store did not answer; the import can be repeated.
    """
    done, purges = Imported(), _Purges()
    made_at, is_encrypted = 0.0, False
    for part in reader.parts():
        if isinstance(part, Head):
            made_at, is_encrypted = part.made_at, part.is_encrypted
            if is_encrypted and decrypt is None:
                raise ConfigError("the file is encrypted: encryption.keys needs the key")
        elif isinstance(part, MovedPurge):
            purges.add([part])
        report("check", done)
    # Those of this store that an export of an hour ago or less does not know of.
    purges.add(await store.purged_since(int(1e6 * made_at)))
    importing = _Import(store, served, done, decrypt if is_encrypted else None, now)
    waiting: list[MovedEntry] = []
    for part in reader.parts():
        if isinstance(part, MovedEvidence):
            await importing.write_evidence(part, made_at + LIFE_S)
        elif isinstance(part, MovedEntry):
            if purges.forbid(part):
                done.purged += 1
            else:
                waiting.append(part)
        if len(waiting) == _ENTRIES:
            await importing.write(waiting)
            waiting = []
            report("import", done)
    await importing.write(waiting)
    return done


class _Import:
    """Writes into the store."""

    def __init__(
        self,
        store: Store,
        served: Served,
        done: Imported,
        decrypt: Decrypt | None,
        now: Callable[[], float],
    ) -> None:
        self._store = store
        self._served = served
        self._done = done
        self._decrypt = decrypt
        self._now = now
        # A purge that begins from now on forbids the entries that it names.
        self._generation = store.purges.generation

    async def write(self, moved: Sequence[MovedEntry]) -> None:
        """Write those entries that are live, wanted and missing."""
        entries = [entry for one in moved if (entry := self._entry(one)) is not None]
        found = await self._store.get_many([entry.key for entry in entries])
        missing = [entry for entry, has in zip(entries, found, strict=True) if has is None]
        self._done.present += len(entries) - len(missing)
        written = await self._store.put_many(missing) if missing else 0
        self._done.entries += written
        self._done.purged += len(missing) - written

    def _entry(self, moved: MovedEntry) -> Entry | None:
        place = self._served.places.get(moved.model_id)
        if place is None:
            self._done.other_model += 1
            return None
        if moved.expires_at <= self._now():
            self._done.expired += 1
            return None
        record: bytes | None = moved.record
        if self._decrypt is not None:
            record = self._decrypt(moved.key, moved.record)
        if record is None:
            self._done.undecryptable += 1
            return None
        has_probe = place.has_probe and moved.probe
        return Entry(
            key=moved.key,
            partition=Partition(moved.namespace_id, place.fingerprint, Hashed(moved.context)),
            record=record,
            expires_at=moved.expires_at,
            tags=tuple(map(Hashed, moved.tags)),
            probe=np.frombuffer(moved.probe, "<f4") if has_probe else None,
            generation=self._generation,
        )

    async def write_evidence(self, moved: MovedEvidence, expires_at: float) -> None:
        """Write a namespace's evidence, unless the store has some."""
        if (moved.fingerprint, moved.kind) not in self._served.evidence:
            self._done.evidence_other += 1
            return
        name = evidence_name(moved.fingerprint, moved.kind, moved.namespace_id)
        if expires_at <= self._now():
            return
        if await self._store.swap_state(name, None, moved.state, expires_at):
            self._done.evidence += 1
        else:
            self._done.evidence_present += 1
