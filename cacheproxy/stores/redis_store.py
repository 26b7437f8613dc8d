"""The store that many processes share: entries in Redis, probes in its Query Engine.

One HASH per entry, with the record, the namespace, the tags and the probe, and always with a TTL:
it is written in one transaction, found by key with HGET and by probe with FT.SEARCH, and expiry
removes it from both at once. `redis_link` has the connections, `redis_index` the indexes; this
module has the commands. Each call is one round trip, whatever it asks for.

Texts of clients never reach a query: namespaces and tags are hashed to hex, probes are parameters.
"""

import asyncio
import logging
import math
from binascii import a2b_base64, b2a_base64
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from redis import exceptions

from cacheproxy.errors import StoreError
from cacheproxy.keys import KEY_BYTES
from cacheproxy.stores.redis_index import (
    ENTRY_PREFIX,
    NAMESPACE_FIELD,
    TAGS_FIELD,
    Hnsw,
    ProbeIndex,
    ProbeIndexes,
    hex_id,
    is_useless,
)
from cacheproxy.stores.redis_link import Command, RedisLink, as_store_error, make_pool
from cacheproxy.stores.redis_watch import IndexWatch
from cacheproxy.stores.store import Entry, Neighbour, Partition, StoreStats, unit_probe

_log = logging.getLogger(__name__)

_LOOKUP_S = 5.0
_WRITE_S = 10.0
"""Longest time for a call, should its caller set none. With 100,000 entries, Redis needs 0.6 s to
look 2,048 probes up, and some 0.1 s to write 256 entries (measured)."""

_NEIGHBOURS = (1, 32, 256)
"""Asked for at first, and again where all of those had expired: Redis removes what has expired
within moments, so that nearly always the first answer stands."""


_index = lru_cache(64)(ProbeIndex)
"""Its names are hashes, worked out once."""


class RedisStore:
    """A `Store` (see there for the methods) in Redis; used from one event loop.

    Any number of processes may share one Redis. `open` does not need it to be there: calls raise
    `StoreError` until it is.
    """

    # Two clients are answered a third faster than with one call at a time, 32 as fast (measured).
    lookups_at_once = 4

    def __init__(self, url: str, *, max_connections: int = 32, hnsw: Hnsw | None = None) -> None:
        """Prepare a store.

        Args:
            url: `redis://`, `rediss://` or `unix://`, as redis-py reads them.
            max_connections: calls at the same time; further ones wait.
            hnsw: parameters of indexes that are made from now on, and of lookups.

        Raises:
            ConfigError: the URL cannot be read.
        """
        pool = make_pool(url)
        self._hnsw = hnsw or Hnsw()
        self._link = RedisLink(pool, max_connections=max_connections)
        self._indexes = ProbeIndexes(pool, self._hnsw)
        self._watch = IndexWatch(self._indexes, self._is_blind)
        self._written: dict[ProbeIndex, Entry] = {}  # the last; one for each model
        self._is_open = False
        self._is_closed = False
        self._calls = 0
        self._idle = asyncio.Event()

    @property
    def semantic_off_because(self) -> str | None:
        """Why this Redis answers no lookups by probe, in a sentence; None while it does."""
        return self._indexes.off_because

    async def open(self) -> None:
        """Try to reach Redis; it may also come later."""
        if self._is_closed:
            raise StoreError("the store is closed")
        is_reached = await self._link.open()
        self._is_open = True
        self._watch.start()
        if is_reached:
            try:
                await self._indexes.look()
            except StoreError as error:
                _log.warning("the store was reached, and did not answer: %s", error)

    async def close(self) -> None:
        """Let the calls in progress end, then release the connections."""
        if self._is_closed:
            return
        self._is_open, self._is_closed = False, True
        while self._calls:
            self._idle.clear()
            await self._idle.wait()
        await self._watch.close()
        await self._indexes.close()
        await self._link.close()

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return each key's live record, or None, in the order of the keys: one round trip."""
        with self._call():
            if not keys:
                return []
            commands = [("HGET", _name(key), "record") for key in keys]
            replies = await self._link.ask(commands, timeout_s=_LOOKUP_S)
            return [_record(reply) for reply in replies]

    async def nearest(
        self, partition: Partition, probes: NDArray[np.float32]
    ) -> list[Neighbour | None]:
        """Return, for each row of `probes` (float32 [n, d], unit rows), the nearest live entry.

        All are None while the index is missing; it is then made, and filled by Redis, in the
        background. Probes are stored as float16: scores are off by some 1e-5.
        """
        if probes.ndim != 2:
            raise StoreError("probes are not a matrix", "invalid")
        with self._call():
            found: list[Neighbour | None] = [None] * len(probes)
            index = _index(partition.fingerprint, probes.shape[1])
            if not len(probes):
                return found
            self._link.check()
            if not await self._indexes.is_ready(index):
                return found
            search = _Search(index, partition, self._hnsw.ef_runtime)
            rows, expired = list(range(len(probes))), list[bytes]()
            for neighbours in _NEIGHBOURS:
                # Redis removes an expired key when any other command than a search meets it.
                removal: list[Command] = [("EXISTS", *expired)] if expired else []
                searches = [search.command(probes[row], neighbours) for row in rows]
                replies = await self._link.ask([*removal, *searches], timeout_s=_LOOKUP_S)
                if any(is_useless(reply) for reply in replies):
                    self._indexes.lost(index)
                    return [None] * len(probes)
                answers = [
                    search.read(reply, probes[row])
                    for row, reply in zip(rows, replies[len(removal) :], strict=True)
                ]
                for row, answer in zip(rows, answers, strict=True):
                    found[row] = answer.neighbour
                again = [i for i, answer in enumerate(answers) if answer.is_blocked]
                rows = [rows[i] for i in again]
                expired = [name for i in again for name in answers[i].expired]
                if not rows:
                    break
            return found

    async def put_many(self, entries: Sequence[Entry]) -> None:
        """Write the entries, each atomically, in one round trip; later lookups see them."""
        with self._call():
            latest = {entry.key: entry for entry in entries}
            if not latest:
                return
            indexes = {
                _index(entry.partition.fingerprint, len(entry.probe))
                for entry in latest.values()
                if entry.probe is not None
            }
            commands = [command for entry in latest.values() for command in _write(entry)]
            self._link.check()
            # Made before the first entry, which lookups then find at once.
            ready = [index for index in indexes if await self._indexes.is_ready(index)]
            # A write would not notice that its index is gone; a search that finds nothing does.
            checks = [_check(index) for index in ready]
            replies = await self._link.ask([*commands, *checks], timeout_s=_WRITE_S)
            for reply in replies[: len(commands)]:
                _raise_error_in(reply)
            for index, reply in zip(ready, replies[len(commands) :], strict=True):
                if is_useless(reply):
                    self._indexes.lost(index)
            self._written |= {
                _index(entry.partition.fingerprint, len(entry.probe)): entry
                for entry in latest.values()
                if entry.probe is not None
            }

    def stats(self) -> StoreStats:
        """Return what is known of the indexes; entries are not counted, as Redis is shared."""
        is_up = self.semantic_off_because is None
        return StoreStats(math.nan, math.nan, replace(self._watch.stats, is_up=is_up))

    async def _is_blind(self, index: ProbeIndex) -> bool:
        """Return whether the entry that was written last is there, and not to be found."""
        entry = self._written.get(index)
        if entry is None or entry.probe is None:
            return False
        search = _Search(index, entry.partition, self._hnsw.ef_runtime)
        commands = [search.command(entry.probe, 1), ("HGET", _name(entry.key), index.field)]
        # In this order: what is there after the search was there before it, too.
        found, probe = await self._link.ask(commands, timeout_s=_LOOKUP_S)
        _raise_error_in(found)
        return found[0] == 0 and probe is not None

    @contextmanager
    def _call(self) -> Iterator[None]:
        """Count a call as in progress; `close` waits for it."""
        if not self._is_open:
            raise StoreError("the store is not open")
        self._calls += 1
        try:
            yield
        finally:
            self._calls -= 1
            if not self._calls:
                self._idle.set()


@dataclass(frozen=True, slots=True)
class _Answer:
    """What one search found; `expired` are names of entries that are still in the index only."""

    neighbour: Neighbour | None
    expired: list[bytes]

    @property
    def is_blocked(self) -> bool:
        """Whether a live entry may stand behind the expired ones."""
        return self.neighbour is None and bool(self.expired)


class _Search:
    """The search for the entries of one partition that are nearest to a probe.

    A prepared command, and not a query of redisvl, which takes 229 us of CPU a lookup to this one's
    70 to 90 (measured): the difference is more than a whole exact lookup.
    """

    def __init__(self, index: ProbeIndex, partition: Partition, ef_runtime: int) -> None:
        self._index = index
        self._namespace = hex_id(partition.namespace_id)
        self._ef_runtime = ef_runtime
        self._field = index.field.encode()

    def command(self, probe: NDArray[np.float32], neighbours: int) -> Command:
        """Return the command; how it filters (graph or brute force) is best left to Redis.

        With 100,000 entries the graph takes 0.3 ms for a namespace that holds most of them, but
        17 ms for one that holds ten, where brute force takes 0.1 (measured).
        """
        ef_runtime = max(self._ef_runtime, neighbours)
        return (
            *("FT.SEARCH", self._index.name),
            f"(@{NAMESPACE_FIELD}:{{{self._namespace}}})"
            f"=>[KNN {neighbours} @{self._index.field} $probe EF_RUNTIME {ef_runtime}]",
            *("RETURN", 3, "record", NAMESPACE_FIELD, self._index.field),
            *("LIMIT", 0, neighbours, "DIALECT", 2),
            *("PARAMS", 2, "probe", probe.astype("<f2").tobytes()),
        )

    def read(self, reply: Any, probe: NDArray[np.float32]) -> _Answer:
        """Return the best of a reply's entries.

        Raises:
            StoreError: the reply is an error, or nothing that a search answers.
        """
        _raise_error_in(reply)
        best: Neighbour | None = None
        expired = []
        try:
            for name, values in zip(reply[1::2], reply[2::2], strict=True):
                if values is None:
                    expired.append(name)
                    continue
                fields = dict(zip(values[::2], values[1::2], strict=True))
                if fields[NAMESPACE_FIELD.encode()] != self._namespace.encode():
                    continue
                score = _cosine(probe, np.frombuffer(fields[self._field], "<f2"))
                if best is None or score > best.score:
                    best = Neighbour(_key(name), fields[b"record"], score)
        except (TypeError, ValueError, KeyError) as error:
            raise StoreError(f"Redis: no answer to a search: {error!r}", "protocol") from error
        return _Answer(best, expired)


def _cosine(probe: NDArray[np.float32], stored: NDArray[np.float16]) -> float:
    """Return the cosine, from -1 to 1.

    Computed here: Redis would round the query to float16 too, and on some CPUs sum in float16.
    """
    other = stored.astype(np.float32)
    cosine = float(probe @ other) / math.sqrt(float(other @ other))
    return max(-1.0, min(1.0, cosine))


def _name(key: bytes) -> bytes:
    if len(key) != KEY_BYTES:
        raise StoreError(f"a key is not {KEY_BYTES} bytes long", "invalid")
    # Base64, and not hex: Redis keeps each name twice, and it makes 75 bytes less an entry.
    return ENTRY_PREFIX + b2a_base64(key, newline=False).rstrip(b"=")


def _key(name: bytes) -> bytes:
    return a2b_base64(name.removeprefix(ENTRY_PREFIX) + b"=")


def _write(entry: Entry) -> list[Command]:
    """Return the commands that replace the entry: all are executed, or none.

    One transaction for each entry, so that Redis turns to other clients between them: a lookup
    beside a long write takes some 8 ms, and not the 130 ms of 256 entries at once (measured).
    HSETEX would be one command, but came with Redis 8 and gives fields a TTL, not the key; scripts
    are what careful operators forbid.
    """
    name = _name(entry.key)
    fields: list[str | bytes] = ["record", entry.record]
    fields += [NAMESPACE_FIELD, hex_id(entry.partition.namespace_id)]
    if entry.tags:
        fields += [TAGS_FIELD, ",".join(sorted({hex_id(tag) for tag in entry.tags}))]
    if entry.probe is not None:
        field = _index(entry.partition.fingerprint, len(entry.probe)).field
        fields += [field, unit_probe(entry.probe).astype("<f2").tobytes()]
    return [
        ("MULTI",),
        ("DEL", name),
        ("HSET", name, *fields),
        ("PEXPIREAT", name, int(1000 * entry.expires_at)),
        ("EXEC",),
    ]


def _check(index: ProbeIndex) -> Command:
    """Return a search that finds nothing, at hardly any cost, or says that the index is gone."""
    nothing = f"@{NAMESPACE_FIELD}:{{none}}"
    return "FT.SEARCH", index.name, nothing, "LIMIT", 0, 0, "DIALECT", 2


def _record(reply: Any) -> bytes | None:
    if reply is None or isinstance(reply, bytes):
        return reply
    if str(reply).startswith("WRONGTYPE"):
        return None  # somebody else's value: a miss, which the next write replaces
    _raise_error_in(reply)
    raise StoreError(f"Redis: no answer to HGET: {reply!r:.50}", "protocol")


def _raise_error_in(reply: Any) -> None:
    """Raise the first error in a reply, which is one itself or the list that EXEC gives."""
    for part in (reply, *reply) if isinstance(reply, list) else (reply,):
        if isinstance(part, exceptions.ResponseError):
            raise as_store_error(part) from part
