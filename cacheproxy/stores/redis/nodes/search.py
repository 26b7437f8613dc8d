"""Lookups by probe at one node of a cluster.

In Redis Stack 7.4 a node indexes and finds its own entries, and has its own index. In Redis 8 a
node asks the others, and an index is the whole cluster's. Which it is, a node itself tells: asked
for an index whose name is in another node's slot, the first redirects, and the second answers.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from redis import exceptions
from redis.asyncio import ConnectionPool
from redis.crc import key_slot

from cacheproxy.concurrency.background import stop_tasks
from cacheproxy.errors import StoreError
from cacheproxy.stores.protocol import Entry, Neighbour, Partition
from cacheproxy.stores.redis.cluster_link import ClusterLink
from cacheproxy.stores.redis.entries import entry_name, index_of
from cacheproxy.stores.redis.index import (
    NAMESPACE_FIELD,
    Hnsw,
    ProbeIndex,
    ProbeIndexes,
)
from cacheproxy.stores.redis.link import Command, is_useless, raise_error_in
from cacheproxy.stores.redis.nodes.gate import Gate
from cacheproxy.stores.redis.nodes.naming import choose_tag, foreign_tag
from cacheproxy.stores.redis.nodes.near import find_near
from cacheproxy.stores.redis.purging.purges import RedisPurges
from cacheproxy.stores.redis.search import Search
from cacheproxy.stores.redis.url import Address
from cacheproxy.stores.redis.watch import IndexWatch

_ASK_S = 5.0
_PREPARED = 1_024
"""Searches that are kept prepared: one for each namespace and model, a few hundred bytes."""

_SCRIPT = """\
local count = tonumber(ARGV[1])
local found = redis.call(unpack(ARGV, count + 2))
local reply = {found[1]}
for place = 2, #found do
  local values = redis.call('HMGET', found[place], unpack(ARGV, 2, count + 1))
  local fields = {}
  for n = 1, count do
    if values[n] then
      fields[#fields + 1] = ARGV[n + 1]
      fields[#fields + 1] = values[n]
    end
  end
  reply[#reply + 1] = found[place]
  reply[#reply + 1] = #fields > 0 and fields
end
return reply
"""
"""Makes a search, and reads what it found: arguments are the number of fields, their names, and the
search. The reply is that of a search that returns fields.

On a cluster of Redis Stack 7.4 a search itself returns names without fields (tried). A script that
names no key may read all keys of its node, and saves a second round trip.
"""


class NodeSearch:
    """The indexes of one node, and the searches in them; used from one event loop.

    Attributes:
        gate: lets searches pass while the node answers.
        watch: of the indexes.
        is_own: whether the node finds its own entries only; None while that is not known.
    """

    def __init__(
        self,
        address: Address,
        cluster: ClusterLink,
        pool: ConnectionPool,
        purging: RedisPurges,
        hnsw: Hnsw,
    ) -> None:
        """Prepare searches at a node.

        Args:
            address: of the node, a master.
            cluster: its cluster.
            pool: makes further connections to the node; closed with this.
            purging: checks what is found.
            hnsw: parameters of lookups, and of indexes that are created from now on.
        """
        self._address = address
        self._cluster = cluster
        self._link = cluster.masters[address]
        self._purging = purging
        self._hnsw = hnsw
        self.indexes = ProbeIndexes(pool, hnsw, lambda: f"cp:lock:{{{self._tag}}}:")
        self.watch = IndexWatch(self.indexes, self._is_blind)
        self.gate = Gate(f"{address[0]}:{address[1]} (searches)", self._repeat)
        self.is_own: bool | None = None
        self._tag = ""
        self._tag_slot = 0
        self._choosing: asyncio.Task[None] | None = None
        self._names: dict[ProbeIndex, ProbeIndex] = {}  # one for each model
        self._searches: dict[tuple[ProbeIndex, Partition], Search] = {}
        self._written: dict[ProbeIndex, Entry] = {}
        self._last: tuple[Partition, NDArray[np.float32]] | None = None

    def start(self) -> None:
        """Start watching the indexes."""
        self.watch.start()

    async def close(self) -> None:
        """Stop all that goes on in the background; no call may be in progress."""
        await stop_tasks(self._choosing)
        await self.gate.close()
        await self.watch.close()
        await self.indexes.close()

    async def find(
        self, partition: Partition, probes: NDArray[np.float32], depths: Sequence[int]
    ) -> list[list[Neighbour]]:
        """Return live entries near each probe (float32 [n, d]) that the node finds, best first.

        Raises:
            StoreError: the node did not answer.
        """
        self._last = partition, probes[:1]
        index = await self._named(index_of(partition, probes.shape[1]))
        if not await self.indexes.is_ready(index):
            return [[] for _ in probes]
        search = self._prepared(index, partition)
        return await find_near(self._link, self.indexes, index, search, probes, depths)

    async def prepare(self, plain: ProbeIndex) -> bool:
        """Return whether an index is ready; create it if there is none.

        Raises:
            StoreError: the node did not answer.
        """
        return await self.indexes.is_ready(await self._named(plain))

    async def check(self, written: Sequence[Entry]) -> None:
        """Find out whether the indexes of entries that were written to the node are still there.

        Raises:
            StoreError: the node did not answer.
        """
        for entry in written:
            if entry.probe is not None:
                plain = index_of(entry.partition, len(entry.probe))
                self._written[await self._named(plain)] = entry
        ready = self.indexes.ready()
        # A write does not notice that its index is gone, but an empty search does.
        replies = await self._link.ask([*map(_nothing, ready)], timeout_s=_ASK_S)
        for index, reply in zip(ready, replies, strict=True):
            if is_useless(reply):
                self.indexes.lost(index)

    async def _named(self, plain: ProbeIndex) -> ProbeIndex:
        """Return the index under the name that it has at this node."""
        if not self._has_tag:
            if self._choosing is None:
                self._choosing = asyncio.create_task(self._choose_tag())
                self._choosing.add_done_callback(self._chosen)
            # All callers share it, and it outlives their deadlines.
            await asyncio.shield(self._choosing)
        if not self.is_own:
            return plain
        named = self._names.get(plain)
        if named is None or named.tag != self._tag:
            named = self._names[plain] = replace(plain, tag=self._tag)
        return named

    @property
    def _has_tag(self) -> bool:
        return self._tag != "" and self._cluster.holder(self._tag_slot) == self._address

    def _chosen(self, task: asyncio.Task[None]) -> None:
        self._choosing = None
        if not task.cancelled():
            task.exception()  # not lost: the next lookup meets it again

    async def _choose_tag(self) -> None:
        slots = self._cluster.slots_of(self._address)
        if not slots:
            raise StoreError("Redis: the node holds no slots", "unavailable")
        foreign = foreign_tag(slots)
        commands: list[Command] = [("FT._LIST",)]
        if foreign is not None:
            commands.append(("FT.SEARCH", f"cp:i3:{{{foreign}}}:none", "*", "LIMIT", 0, 0))
        names, *answers = await self._link.ask(commands, timeout_s=_ASK_S)
        known = [name.decode("latin-1") for name in names] if isinstance(names, list) else []
        # The only node of a cluster finds everything, whichever it is.
        self.is_own = not answers or isinstance(answers[0], exceptions.MovedError)
        self._tag = choose_tag(slots, known)
        self._tag_slot = key_slot(self._tag.encode())

    def _prepared(self, index: ProbeIndex, partition: Partition) -> Search:
        search = self._searches.get((index, partition))
        if search is None:
            if len(self._searches) >= _PREPARED:
                self._searches.clear()
            search = self._searches[index, partition] = self._search(index, partition)
        return search

    def _search(self, index: ProbeIndex, partition: Partition) -> Search:
        kind = _ScriptedSearch if self.is_own else Search
        return kind(index, partition, self._hnsw.ef_runtime, self._purging)

    async def _repeat(self) -> None:
        """Make the last search again, for one probe."""
        async with asyncio.timeout(_ASK_S):
            if self._last is not None:
                await self.find(*self._last, (1,))

    async def _is_blind(self, index: ProbeIndex) -> bool:
        """Return whether the last entry written exists here but is not found."""
        entry = self._written.get(index)
        if entry is None or entry.probe is None:
            return False
        search = self._search(index, entry.partition)
        commands = [search.command(entry.probe, 1), ("HGET", entry_name(entry.key), index.field)]
        # In this order: an entry that exists after the search existed during it.
        found, probe = await self._link.ask(commands, timeout_s=_ASK_S)
        raise_error_in(found)
        return found[0] == 0 and isinstance(probe, bytes)


class _ScriptedSearch(Search):
    """A search that a script makes."""

    def command(self, probe: NDArray[np.float32], neighbours: int) -> Command:
        """Return the command."""
        search = list(super().command(probe, neighbours))
        at = search.index("RETURN")
        end = at + 2 + int(search[at + 1])
        fields = search[at + 1 : end]
        return ("EVAL", _SCRIPT, 0, *fields, *search[:at], "NOCONTENT", *search[end:])


def _nothing(index: ProbeIndex) -> Command:
    """Return a search that finds nothing at almost no cost, or fails if the index is gone."""
    return "FT.SEARCH", index.name, f"@{NAMESPACE_FIELD}:{{none}}", "LIMIT", 0, 0, "DIALECT", 2
