"""The store on a Redis Cluster: entries are found by key and by probe on all nodes.

`nodes` has the lookups by probe: in Redis Stack 7.4 each node indexes and searches its own entries
only, so that all are asked. A lookup goes on without a node that does not answer.

A transaction cannot span nodes, so a write cannot watch the floors of purges, which are on one
node. Instead, lookups check entries against every purge of the last hour that this process has
heard of, and a write reads the floors before and after. Until the second reply the entry has a
short TTL, so that an entry left by a killed process expires before its floor does. (If two
processes write one key within the same millisecond, the first one's TTL may remain: the tiers use
the expiry that is in the record.) What no reading can make up for: if Redis evicts the floors, such
an entry may be served by processes that start later, until it expires.
"""

import math
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cacheproxy.errors import StoreError
from cacheproxy.stores.protocol import Entry, Neighbour, Partition, StoreStats
from cacheproxy.stores.purges import Scope
from cacheproxy.stores.redis.cluster_link import ClusterLink
from cacheproxy.stores.redis.entries import entry_name, index_of, write_commands
from cacheproxy.stores.redis.index import Hnsw
from cacheproxy.stores.redis.keyed import KeyedStore
from cacheproxy.stores.redis.link import Command, raise_error_in
from cacheproxy.stores.redis.nodes.all import ClusterSearch
from cacheproxy.stores.redis.nodes.near import NEIGHBOURS
from cacheproxy.stores.redis.purging.floors import FLOORS_KEPT_S, GENERATION, Floors
from cacheproxy.stores.redis.purging.notices import Purged
from cacheproxy.stores.redis.purging.purges import RedisPurges
from cacheproxy.stores.redis.url import ClusterNodes

_ASK_S = 10.0
_LOOKUP_S = 5.0
_WRITE_PLAIN = 64
_WRITE_PROBES = 24
"""Entries that are written at a time. Indexing one with a probe takes a node up to half a
millisecond, and it serves other clients only in between."""

_GET_SHARE, _SEARCH_SHARE = 0.5, 0.8
"""Shares of a caller's deadline that a node may take. Lookups by key may have waited for half of
theirs before they come here; what is left after a search is for merging the answers."""

_UNCONFIRMED_S = FLOORS_KEPT_S / 2
"""TTL of an entry until the floors have been read again. A purge that intervened was announced
after the write began, and writes take seconds: its floor outlives the entry."""


class ClusterPurges(RedisPurges):
    """Purges on a cluster, whose writes read the floors again instead of watching them."""

    async def allow(self, entries: Sequence[Entry]) -> list[bool]:
        """Return for each entry whether no purge forbids it by now.

        Raises:
            StoreError: Redis did not answer.
        """
        floors = Floors(entries)
        return await self._judge(floors, await self._ask(*floors.question))

    def _begun(self, notice: Purged) -> None:
        self._known.begun(notice.scope_name, notice.generation)

    def _at_once(self, scope: Scope) -> bytes | None:
        return None  # the entry may be on another node than the announcement


class ClusterStore(KeyedStore[ClusterPurges]):
    """A `Store` (see there for the methods) on a Redis Cluster; used from one event loop.

    Any number of processes may share it. `open` succeeds even while the cluster is unreachable:
    calls raise `StoreError` until it can be reached.
    """

    def __init__(
        self,
        url: str,
        *,
        max_connections: int = 32,
        deadline_s: float = _LOOKUP_S,
        hnsw: Hnsw | None = None,
    ) -> None:
        """Prepare a store.

        Args:
            url: as `ClusterNodes` reads it.
            max_connections: for each node; further calls wait.
            deadline_s: within which the caller wants the answer to 128 lookups. They go on without
                a node soon enough for that.
            hnsw: parameters of lookups, and of indexes that are created from now on.

        Raises:
            ConfigError: the URL cannot be read.
        """
        nodes = ClusterNodes(url)
        link = ClusterLink(
            nodes,
            home=GENERATION,
            max_connections=max_connections,
            node_deadline_s=_GET_SHARE * deadline_s,
        )
        super().__init__(link, ClusterPurges)
        self._cluster = link
        self._search = ClusterSearch(
            link, nodes, self._purging, hnsw or Hnsw(), node_deadline_s=_SEARCH_SHARE * deadline_s
        )

    @property
    def reach(self) -> str:
        """Which nodes are asked for neighbours, in words."""
        return self._search.reach

    async def _disconnect(self) -> None:
        await self._search.close()
        await super()._disconnect()

    async def nearest(
        self, partition: Partition, probes: NDArray[np.float32]
    ) -> list[Neighbour | None]:
        """Return, for each row of `probes` (float32 [n, d], unit rows), the nearest live entry.

        It is the nearest on the nodes that answer in time. Indexes are made as in `RedisStore`.
        """
        if probes.ndim != 2:
            raise StoreError("probes are not a matrix", "invalid")
        with self._calls.one():
            if not len(probes):
                return []
            found = await self._search.find(partition, probes, NEIGHBOURS)
            return [row[0] if row else None for row in found]

    async def candidates(
        self, partition: Partition, probe: NDArray[np.float32], count: int
    ) -> list[Neighbour]:
        """Return up to `count` live entries nearest to a probe (float32 [d], unit), best first."""
        with self._calls.one():
            depths = [count + more for more in NEIGHBOURS]
            (found,) = await self._search.find(partition, probe[None], depths)
            return found[:count]

    async def put_many(self, entries: Sequence[Entry]) -> int:
        """Write the entries, each atomically; later lookups find them.

        Return how many keys were written; entries that a purge forbids are left out.
        """
        with self._calls.one():
            waiting = list({entry.key: entry for entry in entries}.values())
            # Built before the first is sent: an invalid entry is refused with its whole batch.
            for entry in entries:
                write_commands(entry)
            indexes = {
                index_of(entry.partition, len(entry.probe))
                for entry in waiting
                if entry.probe is not None
            }
            self._cluster.check()
            if indexes:  # created before the first entry is written, so that lookups find it
                await self._search.prepare(indexes)
            size = _WRITE_PROBES if indexes else _WRITE_PLAIN
            written = 0
            for start in range(0, len(waiting), size):
                written += await self._write(waiting[start : start + size])
            if indexes:
                await self._search.check(waiting)
            return written

    async def _write(self, entries: Sequence[Entry]) -> int:
        allowed = await self._purging.allow(entries)
        # A refused entry may exist from an attempt that a lost connection ended midway.
        stale = [entry for entry, is_new in zip(entries, allowed, strict=True) if not is_new]
        new = [entry for entry, is_new in zip(entries, allowed, strict=True) if is_new]
        until = time.time() + _UNCONFIRMED_S
        commands: list[Command] = [("DEL", entry_name(entry.key)) for entry in stale]
        for entry in new:
            shorter = entry._replace(expires_at=min(entry.expires_at, until))
            commands += [("MULTI",), *write_commands(shorter), ("EXEC",)]
        replies = await self._ask(commands)
        executed = [reply for reply in replies if isinstance(reply, list)]
        confirmed = await self._purging.allow(new) if new else []
        commands = []
        for entry, is_confirmed in zip(new, confirmed, strict=True):
            name = entry_name(entry.key)
            if not is_confirmed:
                commands.append(("DEL", name))
            elif entry.expires_at > until:
                commands.append(("PEXPIREAT", name, int(1000 * entry.expires_at)))
        await self._ask(commands)
        replaced = [
            entry.key for entry, (deleted, *_) in zip(new, executed, strict=True) if deleted
        ]
        if replaced:
            async with self._link.conversation(timeout_s=_ASK_S) as ask:
                await self._purging.tell_replaced(ask, replaced)
        return sum(confirmed)

    async def _ask(self, commands: Sequence[Command]) -> list[object]:
        replies = await self._link.ask(commands, timeout_s=_ASK_S)
        for reply in replies:
            raise_error_in(reply)
        return replies

    def stats(self) -> StoreStats:
        """Return what is known of the indexes; entries are not counted, as Redis is shared."""
        unanswered = self._cluster.unanswered + self._search.unanswered
        return StoreStats(math.nan, math.nan, self._search.stats(), unanswered=unanswered)
