"""Memory goes back soon after much was freed, and a while after little was."""

import asyncio
import gc

import cacheproxy.concurrency.freed_memory as module
from cacheproxy.concurrency.freed_memory import FreedMemory


async def test_circles_of_garbage_are_collected_soon_after_large_bodies(monkeypatch):
    monkeypatch.setattr(module, "_BUSY_S", 0.01)
    monkeypatch.setattr(module, "_QUIET_S", 0.02)
    collected = asyncio.Event()

    class Circle:
        def __del__(self):
            collected.set()

    circle = Circle()
    circle.itself = circle
    gc.disable()
    try:
        del circle
        memory = FreedMemory()
        memory.freed(2**20)
        memory.freed(2**26)
        await asyncio.wait_for(collected.wait(), 10)
    finally:
        gc.enable()


async def test_little_garbage_waits_longer(monkeypatch):
    monkeypatch.setattr(module, "_QUIET_S", 0.01)
    passes = []
    monkeypatch.setattr(module.gc, "collect", lambda *generation: passes.append(generation))
    memory = FreedMemory()

    memory.freed(1)
    memory.freed(1)
    async with asyncio.timeout(10):
        while not passes:
            await asyncio.sleep(0.01)
    assert passes == [()]
