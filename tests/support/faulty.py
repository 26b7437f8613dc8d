"""A store that does what a test tells it to do wrong."""

import asyncio

from cacheproxy.errors import StoreError
from cacheproxy.stores.purges import Purges


class FaultyStore:
    lookups_at_once = 1

    def __init__(self):
        self.written = {}
        self.states = {}
        self.failures = 0
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

    async def put_many(self, entries):
        await self._behave()
        self.written.update({entry.key: entry for entry in entries})
        return len({entry.key for entry in entries})

    async def read_state(self, name):
        await self._behave()
        return self.states.get(name)

    async def swap_state(self, name, old, new, expires_at):
        await self._behave()
        if self.states.get(name) != old:
            return False
        self.states[name] = new
        return True
