"""The event loop's delay is what its timers are late by."""

import asyncio
import time

from cacheproxy.concurrency.background import stop_tasks
from cacheproxy.concurrency.loop_delay import watch_loop


class Delays(list):
    observe = list.append


async def test_a_loop_that_is_held_up_is_seen_to_be_late():
    delays = Delays()
    watching = asyncio.create_task(watch_loop(delays))
    async with asyncio.timeout(10):
        while not delays:
            await asyncio.sleep(0.01)
        while max(delays) < 0.5:
            time.sleep(0.7)  # the whole loop
            await asyncio.sleep(0.2)
    await stop_tasks(watching)
    assert all(delay >= 0 for delay in delays)
