"""What both stores in Redis do the same way: open, close, read by key, purge, count, share states.

Writes and lookups by probe differ between one Redis (`store`) and a cluster (`cluster`).
"""

import secrets
from collections.abc import AsyncIterator, Collection, Sequence
from typing import Generic, TypeVar

from cacheproxy.stores.calls import Calls
from cacheproxy.stores.protocol import Census, Entry, Progress
from cacheproxy.stores.purges import PurgeNote, Purges, Scope
from cacheproxy.stores.redis.channel import Channel
from cacheproxy.stores.redis.cluster_link import ClusterLink
from cacheproxy.stores.redis.entries import used_memory
from cacheproxy.stores.redis.link import RedisLink
from cacheproxy.stores.redis.purging.notices import CHANNEL
from cacheproxy.stores.redis.purging.purges import RedisPurges
from cacheproxy.stores.redis.records import RedisRecords
from cacheproxy.stores.redis.states import RedisStates
from cacheproxy.stores.shielded import Shielded

P = TypeVar("P", bound=RedisPurges)

_ASK_S = 10.0


class KeyedStore(Generic[P]):
    """A `Store` (see there) without writes and lookups by probe; used from one event loop.

    Any number of processes may share one Redis. `open` succeeds even while Redis is unreachable:
    calls raise `StoreError` until it can be reached.
    """

    # Two clients get answers a third sooner than with one call at a time; 32 get no slower ones
    # (measured).
    lookups_at_once = 4

    def __init__(self, link: RedisLink | ClusterLink, purging: type[P]) -> None:
        """Prepare a store over the link, with the kind of purges that suits it."""
        self._link = link
        self.purges = Purges()
        self._purging = purging(link, self.purges, secrets.token_hex(8))
        self._channel = Channel(
            link,
            CHANNEL,
            self.purges,
            catch_up=self._purging.catch_up,
            hear=self._purging.hear,
        )
        self._purge_tasks = Shielded()
        self._records = RedisRecords(link, self._purging)
        self._states = RedisStates(link)
        self._calls = Calls()

    async def open(self) -> None:
        """Try to reach Redis; if that fails, keep trying in the background."""
        self._calls.check_not_closed()
        await self._connect()
        await self._channel.start()

    async def _connect(self) -> bool:
        """Allow calls; return whether Redis can be reached."""
        is_reached = await self._link.open()
        self._calls.open()
        return is_reached

    async def close(self) -> None:
        """Wait for the calls in progress, then release the connections."""
        if not self._calls.close():
            return
        await self._purge_tasks.cut_short()
        await self._channel.stop()
        await self._purging.close()
        await self._calls.ended()
        await self._disconnect()

    async def _disconnect(self) -> None:
        """Release the connections, now that no call is in progress."""
        await self._link.close()

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return each key's live record, or None, in one round trip to each node concerned."""
        with self._calls.one():
            return await self._records.get_many(keys)

    async def purge(self, scope: Scope, progress: Progress | None = None) -> int:
        """Remove the entries in scope whose work began before now; return how many they were.

        Cancelling the caller does not stop a purge. One that fails or is killed midway stays in
        force until the scope is purged again.
        """
        with self._calls.one():
            return await self._purge_tasks.run(self._purging.purge(scope, progress))

    async def entry(self, key: bytes) -> Entry | None:
        """Return the live entry of a key with all that is kept beside its record."""
        with self._calls.one():
            return await self._records.entry(key)

    async def scan(
        self, namespace_ids: Collection[str] | None = None
    ) -> AsyncIterator[list[Entry]]:
        """Yield all live entries in parts, or those of some namespaces, in many round trips."""
        with self._calls.one():
            pass  # not for as long as the scan lasts: one that is given up would delay closing
        async for entries in self._records.scan(namespace_ids):
            yield entries

    async def purged_since(self, generation: int) -> list[PurgeNote]:
        """Return the purges with a higher generation, of the last hour at least."""
        with self._calls.one():
            return await self._purging.purged_since(generation)

    async def census(self) -> Census:
        """Count every entry, in many round trips; the size is that of all data in Redis."""
        with self._calls.one():
            namespaces = await self._purging.removal.count_namespaces()
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
