"""A store that does what a test tells it to do wrong."""

import asyncio

from cacheproxy.errors import StoreError
from cacheproxy.stores.purges import Purges


class FaultyStore:
    """Keeps entries and states in memory.

    Attributes:
        failures: calls that fail before they do anything.
        lost_replies: state writes that are done and fail nevertheless.
        during_swap: called while a state write is on its way, if set.
    """

    lookups_at_once = 1

    def __init__(self):
        self.written = {}
        self.states = {}
        self.failures = 0
        self.lost_replies = 0
        self.during_swap = None
        self.kind = "connection"
        self.stalled = None
        self.calls = 0
        self.purges = Purges()

    def stall(self):
        self.stalled = asyncio.Event()

    async def _behave(self):
        self.calls += 1
        if self.stalled is not None:
            await self.stalled.wait()
        if self.failures:
            self.failures -= 1
            raise StoreError("broken on purpose", self.kind)

    async def get_many(self, keys):
        await self._behave()
        return [self.written[key].record if key in self.written else None for key in keys]

    async def nearest(self, partition, probes):
        await self._behave()
        return [None] * len(probes)

    async def candidates(self, partition, probe, count):
        return [one for one in await self.nearest(partition, probe[None]) if one is not None]

    async def put_many(self, entries):
        await self._behave()
        self.written.update({entry.key: entry for entry in entries})
        return len({entry.key for entry in entries})

    async def read_state(self, name):
        await self._behave()
        return self.states.get(name)

    async def swap_state(self, name, old, new, expires_at):
        await self._behave()
        if self.during_swap is not None:
            self.during_swap()
        if self.states.get(name) != old:
            return False
        self.states[name] = new
        if self.lost_replies:
            self.lost_replies -= 1
            raise StoreError("the reply was lost", self.kind)
        return True
