"""The store that many processes share: entries in Redis, probes in its Query Engine.

An entry is one HASH with the record, the namespace, the tags and the probe, and always with a TTL.
It is written in one transaction, found by key with HGET and by probe with FT.SEARCH, and expiry
removes it from both at once. `link` has the connections, `index` the indexes, `keyed` what this
store shares with that on a cluster; this module has writes and lookups by probe. A lookup is one
round trip; a write takes two for every few entries, so that no purge can intervene (`purges`).

Clients' texts never reach a query: namespaces and tags are hashed to hex, probes are parameters.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cacheproxy.errors import StoreError
from cacheproxy.stores.protocol import Entry, Neighbour, Partition, StoreStats
from cacheproxy.stores.redis.entries import entry_name, index_of, write_commands
from cacheproxy.stores.redis.index import (
    NAMESPACE_FIELD,
    Hnsw,
    ProbeIndex,
    ProbeIndexes,
)
from cacheproxy.stores.redis.keyed import KeyedStore
from cacheproxy.stores.redis.link import Ask, Command, RedisLink, is_useless, raise_error_in
from cacheproxy.stores.redis.nodes.near import NEIGHBOURS, find_near
from cacheproxy.stores.redis.purging.purges import RedisPurges
from cacheproxy.stores.redis.search import Search
from cacheproxy.stores.redis.url import make_pool
from cacheproxy.stores.redis.watch import IndexWatch

_log = logging.getLogger(__name__)

_LOOKUP_S = 5.0
_WRITE_S = 10.0
"""The longest time for a call; callers usually set a shorter one. With 100,000 entries, Redis takes
some 0.1 s to write 256 entries (measured)."""

_WRITE_PROBES = 8
_WRITE_PLAIN = 64
"""Entries per transaction. Indexing an entry with a probe takes up to half a millisecond, and Redis
serves other clients only between transactions."""

_WRITE_ATTEMPTS = 20
"""A transaction fails if any purge intervenes, and is then tried again."""


class _Write(NamedTuple):
    """An entry, and the commands that write it; the first one deletes its predecessor."""

    entry: Entry
    commands: list[Command]


class RedisStore(KeyedStore[RedisPurges]):
    """A `Store` (see there for the methods) in Redis; used from one event loop.

    Any number of processes may share one Redis. `open` succeeds even while Redis is unreachable:
    calls raise `StoreError` until it can be reached.
    """

    def __init__(self, url: str, *, max_connections: int = 32, hnsw: Hnsw | None = None) -> None:
        """Prepare a store.

        Args:
            url: as `make_pool` reads it.
            max_connections: further calls wait.
            hnsw: parameters of lookups, and of indexes that are created from now on.

        Raises:
            ConfigError: the URL cannot be read.
        """
        pool = make_pool(url)
        super().__init__(RedisLink(pool, max_connections=max_connections), RedisPurges)
        self._hnsw = hnsw or Hnsw()
        self._indexes = ProbeIndexes(pool, self._hnsw)
        self._watch = IndexWatch(self._indexes, self._is_blind)
        self._written: dict[ProbeIndex, Entry] = {}  # the last; one for each model

    @property
    def semantic_off_because(self) -> str | None:
        """Why the semantic tier is off on this Redis, in a sentence; None while it is not."""
        return self._indexes.off_because

    async def _connect(self) -> bool:
        is_reached = await super()._connect()
        self._watch.start()
        if is_reached:
            try:
                await self._indexes.look()
            except StoreError as error:
                _log.warning("Redis was reached but did not answer: %s", error)
        return is_reached

    async def _disconnect(self) -> None:
        await self._watch.close()
        await super()._disconnect()
        await self._indexes.close()

    async def nearest(
        self, partition: Partition, probes: NDArray[np.float32]
    ) -> list[Neighbour | None]:
        """Return, for each row of `probes` (float32 [n, d], unit rows), the nearest live entry.

        All are None while the index is missing; it is then created in the background, and filled by
        Redis. Probes are stored as float16, which changes scores by some 1e-5.
        """
        if probes.ndim != 2:
            raise StoreError("probes are not a matrix", "invalid")
        found = await self._search(partition, probes, NEIGHBOURS)
        return [row[0] if row else None for row in found]

    async def candidates(
        self, partition: Partition, probe: NDArray[np.float32], count: int
    ) -> list[Neighbour]:
        """Return up to `count` live entries nearest to a probe (float32 [d], unit), best first.

        There are none while the index is missing, as for `nearest`.
        """
        (found,) = await self._search(partition, probe[None], [count + more for more in NEIGHBOURS])
        return found[:count]

    async def _search(
        self, partition: Partition, probes: NDArray[np.float32], depths: Sequence[int]
    ) -> list[list[Neighbour]]:
        with self._calls.one():
            nothing: list[list[Neighbour]] = [[] for _ in probes]
            index = index_of(partition, probes.shape[1])
            if not len(probes):
                return nothing
            self._link.check()
            if not await self._indexes.is_ready(index):
                return nothing
            search = Search(index, partition, self._hnsw.ef_runtime, self._purging)
            return await find_near(self._link, self._indexes, index, search, probes, depths)

    async def put_many(self, entries: Sequence[Entry]) -> int:
        """Write the entries, each atomically; later lookups find them.

        Return how many keys were written; entries that a purge forbids are left out.
        """
        with self._calls.one():
            latest = {entry.key: entry for entry in entries}
            if not latest:
                return 0
            indexes = {
                index_of(entry.partition, len(entry.probe))
                for entry in latest.values()
                if entry.probe is not None
            }
            self._link.check()
            # Created before the first entry is written, so that lookups find it at once.
            ready = [index for index in indexes if await self._indexes.is_ready(index)]
            # Built before the first is sent: an invalid entry is refused with its whole batch.
            waiting = [_Write(entry, write_commands(entry)) for entry in latest.values()]
            size = _WRITE_PROBES if indexes else _WRITE_PLAIN
            written = 0
            async with self._link.conversation(timeout_s=_WRITE_S) as ask:
                for start in range(0, len(waiting), size):
                    written += await self._write(ask, waiting[start : start + size])
                # A write does not notice that its index is gone, but an empty search does.
                for index, reply in zip(ready, await ask([*map(_check, ready)]), strict=True):
                    if is_useless(reply):
                        self._indexes.lost(index)
            self._written |= {
                index_of(entry.partition, len(entry.probe)): entry
                for entry in latest.values()
                if entry.probe is not None
            }
            return written

    async def _write(self, ask: Ask, writes: Sequence[_Write]) -> int:
        """Write those of a few entries that no purge forbids, and publish replaced keys."""
        for _ in range(_WRITE_ATTEMPTS):
            allowed = await self._purging.admit(ask, [write.entry for write in writes])
            admitted = [
                write for write, is_allowed in zip(writes, allowed, strict=True) if is_allowed
            ]
            if not admitted:
                await ask([("UNWATCH",)])
                return 0
            commands = [command for write in admitted for command in write.commands]
            replies = await ask([("MULTI",), *commands, ("EXEC",)])
            for reply in replies:
                raise_error_in(reply)
            if replies[-1] is not None:
                deleted = replies[-1][:: len(admitted[0].commands)]
                pairs = zip(admitted, deleted, strict=True)
                replaced = [write.entry.key for write, count in pairs if count]
                await self._purging.tell_replaced(ask, replaced)
                return len(admitted)
        raise StoreError("purges intervene faster than entries can be written", "unavailable")

    def stats(self) -> StoreStats:
        """Return what is known of the indexes; entries are not counted, as Redis is shared."""
        because = self.semantic_off_because
        index = replace(self._watch.stats, is_up=because is None, off_because=because)
        return StoreStats(math.nan, math.nan, index)

    async def _is_blind(self, index: ProbeIndex) -> bool:
        """Return whether the last entry written exists but is not found."""
        entry = self._written.get(index)
        if entry is None or entry.probe is None:
            return False
        search = Search(index, entry.partition, self._hnsw.ef_runtime, self._purging)
        commands = [search.command(entry.probe, 1), ("HGET", entry_name(entry.key), index.field)]
        # In this order: an entry that exists after the search existed during it.
        found, probe = await self._link.ask(commands, timeout_s=_LOOKUP_S)
        raise_error_in(found)
        return found[0] == 0 and probe is not None


def _check(index: ProbeIndex) -> Command:
    """Return a search that finds nothing at almost no cost, or fails if the index is gone."""
    nothing = f"@{NAMESPACE_FIELD}:{{none}}"
    return "FT.SEARCH", index.name, nothing, "LIMIT", 0, 0, "DIALECT", 2
