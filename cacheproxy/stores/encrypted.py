"""A store whose records are encrypted: whoever reads the store's files or its Redis sees no texts.

AES-256-GCM, each record under a key of its own, derived from the configured one and the entry's key
(HMAC-SHA256), so that the random nonces of one configured key can be used without a limit worth
counting (NIST SP 800-38D, 8.3, allows 2**32 of them under one). The entry's key is authenticated
with it: a record that was moved to another entry does not decrypt.

    magic "CPX1" 4 | id of the configured key 8 | nonce 12 | ciphertext | tag 16

What does not decrypt, and what is not encrypted, is a miss and is counted. Lookups by probe need
the probes, and the index needs ids and tags: those stay as they are (docs/security.md).
"""

import hmac
import os
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import replace

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from numpy.typing import NDArray

from cacheproxy.stores.protocol import (
    Census,
    Entry,
    Neighbour,
    Partition,
    Progress,
    Store,
    StoreStats,
)
from cacheproxy.stores.purges import PurgeNote, Scope

_MAGIC = b"CPX1"
_ID_BYTES = 8
_NONCE_BYTES = 12
_NONCE_AT = len(_MAGIC) + _ID_BYTES
_TEXT_AT = _NONCE_AT + _NONCE_BYTES


class RecordCipher:
    """Encrypts by the first of several keys, and decrypts by the one that a record names."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        """Take keys of 32 bytes, at least one."""
        self._keys = {_derived(key, b"id")[:_ID_BYTES]: key for key in keys}
        self._first = _derived(keys[0], b"id")[:_ID_BYTES]

    def encrypt(self, entry_key: bytes, record: bytes) -> bytes:
        """Return an entry's record as it is stored."""
        nonce = os.urandom(_NONCE_BYTES)
        cipher = AESGCM(_derived(self._keys[self._first], b"record" + entry_key))
        return _MAGIC + self._first + nonce + cipher.encrypt(nonce, record, entry_key)

    def decrypt(self, entry_key: bytes, stored: bytes) -> bytes | None:
        """Return an entry's record; None if it is not encrypted by one of the keys, or damaged."""
        key = self._keys.get(stored[len(_MAGIC) : _NONCE_AT])
        if key is None or not stored.startswith(_MAGIC):
            return None
        cipher = AESGCM(_derived(key, b"record" + entry_key))
        try:
            return cipher.decrypt(stored[_NONCE_AT:_TEXT_AT], stored[_TEXT_AT:], entry_key)
        except (InvalidTag, ValueError):  # ValueError: too short for a nonce
            return None


def _derived(key: bytes, purpose: bytes) -> bytes:
    return hmac.digest(key, b"cacheproxy " + purpose, "sha256")


class EncryptedStore:
    """A `Store` (see there for the methods) over another one."""

    def __init__(self, store: Store, cipher: RecordCipher) -> None:
        self._store = store
        self._cipher = cipher
        self._undecryptable = 0
        self.lookups_at_once = store.lookups_at_once
        self.purges = store.purges

    async def open(self) -> None:
        """Open the store."""
        await self._store.open()

    async def close(self) -> None:
        """Close the store."""
        await self._store.close()

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return each key's live record; None also for one that does not decrypt."""
        found = await self._store.get_many(keys)
        return [
            None if stored is None else self._decrypt(key, stored)
            for key, stored in zip(keys, found, strict=True)
        ]

    async def nearest(
        self, partition: Partition, probes: NDArray[np.float32]
    ) -> list[Neighbour | None]:
        """Return each row's nearest live entry; None also where it does not decrypt."""
        found = await self._store.nearest(partition, probes)
        return [None if one is None else self._read(one) for one in found]

    async def candidates(
        self, partition: Partition, probe: NDArray[np.float32], count: int
    ) -> list[Neighbour]:
        """Return the nearest live entries, but for those whose records do not decrypt."""
        found = map(self._read, await self._store.candidates(partition, probe, count))
        return [one for one in found if one is not None]

    async def put_many(self, entries: Sequence[Entry]) -> int:
        """Write the entries, their records encrypted."""
        encrypt = self._cipher.encrypt
        return await self._store.put_many(
            [entry._replace(record=encrypt(entry.key, entry.record)) for entry in entries]
        )

    async def entry(self, key: bytes) -> Entry | None:
        """Return the live entry of a key; None also for one that does not decrypt."""
        found = await self._store.entry(key)
        record = None if found is None else self._decrypt(key, found.record)
        return None if found is None or record is None else found._replace(record=record)

    async def scan(
        self, namespace_ids: Collection[str] | None = None
    ) -> AsyncIterator[list[Entry]]:
        """Yield all live entries in parts, but for those whose records do not decrypt."""
        async for entries in self._store.scan(namespace_ids):
            records = [self._decrypt(entry.key, entry.record) for entry in entries]
            yield [
                entry._replace(record=record)
                for entry, record in zip(entries, records, strict=True)
                if record is not None
            ]

    async def purged_since(self, generation: int) -> list[PurgeNote]:
        """Return the purges with a higher generation."""
        return await self._store.purged_since(generation)

    async def purge(self, scope: Scope, progress: Progress | None = None) -> int:
        """Remove the entries in scope."""
        return await self._store.purge(scope, progress)

    async def census(self) -> Census:
        """Count every entry."""
        return await self._store.census()

    async def read_state(self, name: str) -> bytes | None:
        """Return a state: they hold counts and hashes, and are not encrypted."""
        return await self._store.read_state(name)

    async def swap_state(self, name: str, old: bytes | None, new: bytes, expires_at: float) -> bool:
        """Write a state."""
        return await self._store.swap_state(name, old, new, expires_at)

    def stats(self) -> StoreStats:
        """Return what the store holds, and how many records did not decrypt."""
        return replace(self._store.stats(), undecryptable=self._undecryptable)

    def _read(self, found: Neighbour) -> Neighbour | None:
        record = self._decrypt(found.key, found.record)
        return None if record is None else found._replace(record=record)

    def _decrypt(self, entry_key: bytes, stored: bytes) -> bytes | None:
        record = self._cipher.decrypt(entry_key, stored)
        if record is None:
            self._undecryptable += 1
        return record
