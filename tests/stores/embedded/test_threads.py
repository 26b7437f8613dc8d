"""The embedded store's threads: neither a busy event loop nor a blocked write delays lookups."""

import asyncio
import json
import sqlite3

from embedded_entries import PARTITION, entries, key, opened
from unit_probes import random_probes


async def test_a_saturated_event_loop_still_gets_its_answers(path):
    payload = {"numbers": list(range(2000))}

    async def saturate() -> None:
        while True:
            json.dumps(payload)
            await asyncio.sleep(0)

    async with opened(path) as store:
        await store.put_many(entries(range(100)))
        busy = asyncio.create_task(saturate())
        # A hundred lookups take some 20 ms (measured); a starved reader thread would need seconds.
        async with asyncio.timeout(10):
            for n in range(100):
                assert await store.get_many([key(n)]) == [b"record"]
        busy.cancel()


async def test_a_write_that_waits_for_the_lock_delays_no_lookup(path):
    (probe,) = random_probes(1)
    async with opened(path) as store:
        await store.put_many(entries(["a"], probes=[probe]))
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        write = asyncio.create_task(store.put_many(entries(["b"])))
        await asyncio.sleep(0)  # lets the write begin
        assert await store.get_many([key("a"), key("b")]) == [b"record", None]
        assert (await store.nearest(PARTITION, probe[None]))[0].key == key("a")
        assert not write.done()
        other.execute("ROLLBACK")
        other.close()
        await write
        assert await store.get_many([key("b")]) == [b"record"]
