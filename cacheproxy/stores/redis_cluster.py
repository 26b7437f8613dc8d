"""The store on a Redis Cluster: entries by key, spread over its nodes; nothing is found by probe.

Redis Stack 7.4 has an index on one node, and finds that node's entries only; Redis 8 is said to ask
all nodes, and was not at hand to be tested.

A transaction cannot span nodes, so that a write cannot watch the purges' floors, which are on one
of them. Instead, lookups judge what they find by every purge of the last hour, of which they have
heard; and a write asks for the floors before and after. Until the second answer the entry has a
short life, so that what a killed process leaves behind is gone before its floor is. (Two processes
that write one key within the same millisecond may leave the first one's expiry: the tiers go by
that in the record.)
"""

import logging
import math
import secrets
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cacheproxy.errors import StoreError
from cacheproxy.stores.calls import Calls
from cacheproxy.stores.purges import Purges, Scope
from cacheproxy.stores.redis_channel import Channel
from cacheproxy.stores.redis_cluster_link import ClusterLink
from cacheproxy.stores.redis_entries import entry_name, used_memory, write_commands
from cacheproxy.stores.redis_link import Command, raise_error_in
from cacheproxy.stores.redis_purges import (
    CHANNEL,
    FLOORS,
    FLOORS_KEPT_S,
    GENERATION,
    Floors,
    Purged,
    RedisPurges,
    name_of,
)
from cacheproxy.stores.redis_records import RedisRecords
from cacheproxy.stores.redis_states import RedisStates
from cacheproxy.stores.redis_url import ClusterNodes
from cacheproxy.stores.shielded import Shielded
from cacheproxy.stores.store import (
    Census,
    Entry,
    IndexStats,
    Neighbour,
    Partition,
    Progress,
    StoreStats,
)

_log = logging.getLogger(__name__)

_ASK_S = 10.0
_WRITE_ENTRIES = 64

_UNCONFIRMED_S = FLOORS_KEPT_S / 2
"""Life of an entry of which it is not yet known whether a purge came between. The purge was
announced after the write began, and writes take seconds: its floor lives longer."""

_PAST_PURGES = 4_096
"""Finished purges remembered beyond which those older than an hour are looked for and forgotten."""


class ClusterPurges(RedisPurges):
    """Purges on a cluster: entries are judged by those of the last hour, finished or not."""

    def __init__(self, link: ClusterLink, purges: Purges, own_id: str) -> None:
        super().__init__(link, purges, own_id)
        self._past: dict[str, int] = {}
        self._most_past = _PAST_PURGES

    @property
    def are_judging(self) -> bool:
        """Whether lookups need namespace and tags of what they read, to judge it."""
        return bool(self._past) or super().are_judging

    async def allow(self, entries: Sequence[Entry]) -> list[bool]:
        """Return of each entry whether no purge forbids it by now.

        Raises:
            StoreError: Redis did not answer.
        """
        floors = Floors(entries)
        return floors.allow(await self._ask(*floors.question))

    async def catch_up(self) -> None:
        """Learn the state, as anything may have been announced unheard.

        Raises:
            StoreError: Redis did not answer.
        """
        floors = await self._ask("ZRANGE", FLOORS, 0, -1, "WITHSCORES")
        for name, score in zip(floors[::2], floors[1::2], strict=True):
            self._remember(name.decode("latin-1"), int(float(score)))
        await super().catch_up()

    def _purged_at(self, name: str) -> int:
        return max(self._past.get(name, 0), super()._purged_at(name))

    def _begun(self, notice: Purged) -> None:
        self._judge_by(name_of(notice), notice.generation)
        self._remember(name_of(notice), notice.generation)

    def _remember(self, name: str, generation: int) -> None:
        self._past[name] = max(generation, self._past.get(name, 0))
        if len(self._past) > self._most_past:
            oldest = max(self._past.values()) - FLOORS_KEPT_S * 1_000_000
            self._past = {name: at for name, at in self._past.items() if at >= oldest}
            self._most_past = 2 * len(self._past) + _PAST_PURGES

    def _at_once(self, scope: Scope) -> bytes | None:
        return None  # it is on another node than the announcement


class ClusterStore:
    """A `Store` (see there for the methods) on a Redis Cluster; used from one event loop.

    Any number of processes may share it. `open` does not need it to be there: calls raise
    `StoreError` until it is.
    """

    lookups_at_once = 4

    def __init__(self, url: str, *, max_connections: int = 32) -> None:
        """Prepare a store.

        Args:
            url: as `ClusterNodes` reads it.
            max_connections: calls at the same time to one node; further ones wait.

        Raises:
            ConfigError: the URL cannot be read.
        """
        nodes = ClusterNodes(url)
        self._link = ClusterLink(nodes, home=GENERATION, max_connections=max_connections)
        self.purges = Purges()
        self._purging = ClusterPurges(self._link, self.purges, secrets.token_hex(8))
        self._channel = Channel(
            self._link,
            CHANNEL,
            self.purges,
            catch_up=self._purging.catch_up,
            hear=self._purging.hear,
        )
        self._purge_tasks = Shielded()
        self._records = RedisRecords(self._link, self._purging)
        self._states = RedisStates(self._link)
        self._calls = Calls()

    async def open(self) -> None:
        """Try to reach the cluster; it may also come later."""
        self._calls.check_not_closed()
        _log.warning("lookups by probe are off, exact ones go on: the store is a Redis Cluster")
        await self._link.open()
        self._calls.open()
        await self._channel.start()

    async def close(self) -> None:
        """Let the calls in progress end, then release the connections."""
        if not self._calls.close():
            return
        await self._purge_tasks.cut_short()
        await self._channel.stop()
        await self._calls.ended()
        await self._link.close()

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return each key's live record, or None: one round trip to each node that has some."""
        with self._calls.one():
            return await self._records.get_many(keys)

    async def nearest(
        self, partition: Partition, probes: NDArray[np.float32]
    ) -> list[Neighbour | None]:
        """Return None for each row."""
        if probes.ndim != 2:
            raise StoreError("probes are not a matrix", "invalid")
        with self._calls.one():
            return [None] * len(probes)

    async def put_many(self, entries: Sequence[Entry]) -> int:
        """Write the entries, each atomically and without its probe; later lookups see them.

        Return how many keys were written: those that a purge forbids are left out.
        """
        with self._calls.one():
            latest = {entry.key: entry._replace(probe=None) for entry in entries}
            waiting = list(latest.values())
            # All of them before the first is sent: one that is no entry is refused with its batch.
            for entry in entries:
                write_commands(entry)
            written = 0
            for start in range(0, len(waiting), _WRITE_ENTRIES):
                written += await self._write(waiting[start : start + _WRITE_ENTRIES])
            return written

    async def _write(self, entries: Sequence[Entry]) -> int:
        allowed = await self._purging.allow(entries)
        # What is refused may be there from an attempt that a lost connection ended half-way.
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

    async def purge(self, scope: Scope, progress: Progress | None = None) -> int:
        """Remove what was made before now and the scope names; return how many entries that were.

        A caller that is cancelled does not stop it. What fails on its way, or is killed, stays in
        force until it is purged again.
        """
        with self._calls.one():
            return await self._purge_tasks.run(self._purging.purge(scope, progress))

    async def census(self) -> Census:
        """Count every entry, in many round trips; the size is that of all that the nodes hold."""
        with self._calls.one():
            namespaces = await self._purging.count_namespaces()
            size_bytes = 0.0
            for part in self._link.parts:
                (reply,) = await part.ask([("INFO", "memory")], timeout_s=_ASK_S)
                size_bytes += used_memory(reply)
            return Census(sum(namespaces.values()), size_bytes, namespaces)

    async def read_state(self, name: str) -> bytes | None:
        """Return the live state of that name."""
        with self._calls.one():
            return await self._states.read(name)

    async def swap_state(self, name: str, old: bytes | None, new: bytes, expires_at: float) -> bool:
        """Write a state if it still is `old`; return whether it was."""
        with self._calls.one():
            return await self._states.swap(name, old, new, expires_at)

    def stats(self) -> StoreStats:
        """Return that nothing is found by probe; entries are not counted, as Redis is shared."""
        return StoreStats(math.nan, math.nan, IndexStats(is_up=False))
