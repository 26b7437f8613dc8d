"""Whether a store does what the tiers need: entries of the examination's own are put to the test.

They are in a namespace of their own and live for seconds. The index that they need in Redis is
removed by the caller.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import numpy as np

from cacheproxy.errors import StoreError
from cacheproxy.keys import Namespace
from cacheproxy.stores.doctor.findings import Finding
from cacheproxy.stores.protocol import Entry, Partition, Store
from cacheproxy.stores.purges import Scope

FINGERPRINT = "cacheproxy doctor"
DIMENSIONS = 8

PARTITION = Partition(Namespace("cacheproxy", "doctor").id, FINGERPRINT)

_ENTRIES = 32
"""So many that each node of a small cluster has some."""

_LIVE_S = 1.0
_FOUND_S = 5.0
_LATE_S = 1.0
_HEARD_S = 2.0
_POLL_S = 0.01


async def check_entries(
    one: Store, other: Store | None, *, wants_search: bool
) -> AsyncIterator[Finding]:
    """Yield a finding for each thing that a store has to do for an entry.

    Args:
        one: writes; open.
        other: reads, as another process does; None if no other process can.
        wants_search: whether lookups by probe are wanted.
    """
    reader = other or one
    rows = np.random.default_rng().standard_normal((_ENTRIES, DIMENSIONS)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    keys = [secrets.token_bytes(32) for _ in rows]

    def entries(live_s: float) -> list[Entry]:
        expires_at, generation = time.time() + live_s, one.purges.generation
        return [
            Entry(key, PARTITION, b"doctor", expires_at, (), row, generation)
            for key, row in zip(keys, rows, strict=True)
        ]

    try:
        began_at = time.monotonic()
        await one.put_many(entries(60.0))
        took_ms = 1000 * (time.monotonic() - began_at)
        yield Finding("write", "ok", f"{_ENTRIES} entries in {took_ms:.0f} ms")
        found = await reader.get_many(keys)
        missing = found.count(None)
        if missing:
            yield Finding("found by key", "error", f"{missing} of {_ENTRIES} are not", _REPORT)
        else:
            yield Finding("found by key", "ok", "all that were written")
        if wants_search:
            yield await _check_search(reader, keys, rows)
        yield await _check_expiry(one, reader, entries(_LIVE_S))
        await one.put_many(entries(60.0))
        yield await _check_purge(one, other, keys)
    except StoreError as error:
        yield Finding("entries", "error", f"{error} ({error.kind})", _TODO.get(error.kind, _REPORT))


_REPORT = "see the log of the store's server"

_TODO = {
    "oom": "the store is full: raise its limit, or let it evict",
    "readonly": "it is a replica: name the master",
    "noauth": "give the user the rights that docs/stores.md lists",
    "timeout": "bring the store nearer, or see what keeps it busy",
}


async def _until(condition: Callable[[], Awaitable[bool]], seconds: float) -> float | None:
    """Return after how long a condition held, seconds; None if it did not in time."""
    began_at = time.monotonic()
    while not await condition():
        if time.monotonic() > began_at + seconds:
            return None
        await asyncio.sleep(_POLL_S)
    return time.monotonic() - began_at


async def _check_search(reader: Store, keys: list[bytes], rows: np.ndarray) -> Finding:
    check = "found by probe"

    async def count_missing() -> int:
        found = await reader.nearest(PARTITION, rows)
        return sum(one is None or one.key != key for one, key in zip(found, keys, strict=True))

    async def is_decided() -> bool:
        return reader.stats().index.off_because is not None or not await count_missing()

    await _until(is_decided, _FOUND_S)
    missing, because = await count_missing(), reader.stats().index.off_because
    if not missing:
        return Finding(check, "ok", "all that were written")
    says = f"{missing} of {_ENTRIES} are not" + (f": {because}" if because else "")
    return Finding(check, "error", says, "without that there is no semantic tier")


async def _check_expiry(one: Store, reader: Store, short: list[Entry]) -> Finding:
    check = "expiry"
    await one.put_many(short)
    ends_at = short[0].expires_at
    keys = [entry.key for entry in short]

    async def is_gone() -> bool:
        return not any(await reader.get_many(keys))

    if await _until(is_gone, _LIVE_S + _LATE_S) is None:
        says = f"entries are still there {_LATE_S:g} s after their end"
        return Finding(check, "error", says, "compare the clocks of this machine and the store's")
    early_s = ends_at - time.time()
    if early_s > _LIVE_S / 5:
        says = f"entries were gone {early_s:.1f} s before their end"
        todo = "compare the clocks of this machine and the store's"
        return Finding(check, "error", says, todo)
    return Finding(check, "ok", "on time")


async def _check_purge(one: Store, other: Store | None, keys: list[bytes]) -> Finding:
    check, reader = "purge", other or one
    began_at = time.monotonic()
    removed = await one.purge(Scope(PARTITION.namespace_id))

    async def is_heard() -> bool:
        return reader.purges.generation >= one.purges.generation

    if await _until(is_heard, _HEARD_S) is None:
        todo = "let the user subscribe to cp:notices, and keep that connection open"
        return Finding(check, "error", "another process does not hear of it", todo)
    took_ms = 1000 * (time.monotonic() - began_at)
    if any(await reader.get_many(keys)):
        return Finding(check, "error", "purged entries are still found", _REPORT)
    heard = "" if other is None else ", heard by another process"
    return Finding(check, "ok", f"{removed} entries in {took_ms:.0f} ms{heard}")
