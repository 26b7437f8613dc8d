"""Entries in Redis: their keys, their time to live, and what else may be in their place."""

import asyncio
from contextlib import suppress

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis_entries import (
    DIMENSIONS,
    INDEX,
    PARTITION,
    count_stored,
    entries,
    failure_of,
    key,
    names_of,
    opened,
    until,
)
from relay import Relay
from unit_probes import random_probes, unit

from cacheproxy.errors import StoreError
from cacheproxy.stores.protocol import Partition
from cacheproxy.stores.redis.entries import entry_name
from cacheproxy.stores.redis.index import ENTRY_PREFIX, ProbeIndex
from cacheproxy.stores.redis.search import Search


async def test_no_key_is_ever_without_a_ttl(redis_url, client):
    async with opened(redis_url) as store:
        await store.put_many(entries(range(300), probes=random_probes(300), tags=("a", "b")))
        await store.put_many(entries(range(100, 400)))
        await store.nearest(PARTITION, random_probes(3))
        await store.put_many(entries(range(50), ttl_s=-1))
    ttls = {name: client.pttl(name) for name in client.scan_iter()}
    of_entries = [ttl for name, ttl in ttls.items() if name.startswith(ENTRY_PREFIX)]
    assert len(of_entries) == 350
    assert max(of_entries) <= 60_000
    assert min(ttls.values()) > 0


async def test_an_entry_that_expires_leaves_keys_and_index(redis_url, client):
    async with opened(redis_url) as store:
        await store.put_many(entries(range(100), ttl_s=0.3, probes=random_probes(100)))

        async def is_empty():
            return count_stored(client) == 0

        await until(is_empty)
        assert client.ft(INDEX.name).info()["num_docs"] in (0, "0")


async def test_nearest_sees_past_entries_that_expired_and_were_not_removed(start_redis):
    server = start_redis()
    server.client().execute_command("DEBUG", "SET-ACTIVE-EXPIRE", "0")
    centre, away = random_probes(2)
    crowd = unit(centre + 0.05 * random_probes(200, seed=1))
    async with opened(server.url) as store:
        await store.put_many(entries(range(200), ttl_s=0.2, probes=crowd))
        await store.put_many(entries(["alive"], probes=[away]))
        await asyncio.sleep(0.3)
        assert server.client().dbsize() == 201 + 2  # and two keys about purges
        (found,) = await store.nearest(PARTITION, centre[None])
        assert found.key == key("alive")


async def test_foreign_values_in_the_place_of_entries_are_misses_and_replaced(redis_url, client):
    async with opened(redis_url) as store:
        name = entry_name(key("a"))
        for plant in (
            lambda: client.set(name, "text"),
            lambda: client.rpush(name, "list"),
            lambda: client.hset(name, "other", "field"),
        ):
            client.delete(name)
            plant()
            assert await store.get_many([key("a"), key("b")]) == [None, None]
            await store.put_many(entries(["a"]))
            assert names_of(await store.get_many([key("a")])) == ["a"]
            assert set(client.hkeys(name)) == {b"record", b"namespace"}


async def test_a_probe_in_another_namespace_of_the_entry_itself_is_no_neighbour(redis_url, client):
    (probe,) = random_probes(1)
    async with opened(redis_url) as store:
        await store.put_many(entries(["a"], probes=[probe]))
        index = ProbeIndex(PARTITION.fingerprint, DIMENSIONS)
        search = Search(index, Partition("f" * 32, "model"), 64, store._purging)
        reply = [1, ENTRY_PREFIX + b"A" * 43, [b"record", b"\0" * 9, b"namespace", b"other",
                 index.field.encode(), probe.astype("<f2").tobytes()]]  # fmt: skip
        assert search.read(reply, probe).neighbour is None


async def test_what_is_no_unit_vector_is_refused_and_nothing_written(redis_url, client):
    good = random_probes(1)[0]
    async with opened(redis_url) as store:
        for bad in (good * 2, good * np.nan, np.zeros(DIMENSIONS, np.float32), good[None]):
            assert await failure_of(
                store.put_many(entries(["good", "bad"], probes=[good, bad]))
            ) == ("invalid")
        assert await store.get_many([key("good")]) == [None]


HOSTILE = ["*", "|", "a|b", "{x}", "}", "\\", "-", "@namespace:{*}", ":", ",", " ", "", "\0", "é",
           "\udc80", "😀", "%", "'", '"', "(", "=>[KNN 5 @x $v]", "x" * 10_000]  # fmt: skip


names = st.one_of(st.sampled_from(HOSTILE), st.text(st.characters(codec=None), max_size=30))


@given(ours=names, theirs=names)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_namespaces_never_meet_and_near_duplicates_do(redis_url, client, ours, theirs):
    async def check():
        a, b = Partition(ours, "model"), Partition(theirs, "model")
        (probe,) = random_probes(1)
        near = unit(probe + 0.01 * random_probes(1, seed=1)[0])
        client.flushall()
        async with opened(redis_url) as store:
            await store.put_many(entries(["a"], partition=a, probes=[probe], tags=(theirs, ours)))
            (duplicate,) = await store.nearest(a, near[None])
            assert duplicate.key == key("a")
            assert duplicate.score > 0.99
            if ours != theirs:
                assert await store.nearest(b, probe[None]) == [None]

    asyncio.run(check())


async def test_a_write_cut_anywhere_leaves_every_entry_whole_or_absent(start_redis):
    server = start_redis()
    client = server.client()
    rows = random_probes(20)
    async with Relay(server.port) as relay, opened(f"redis://127.0.0.1:{relay.port}") as store:
        await store.put_many(entries(["before"], probes=rows[:1]))
        for attempt in range(40):
            relay.requests_left = 7 + 373 * attempt
            batch = entries(range(20), probes=rows, tags=(f"attempt {attempt}",))
            with suppress(StoreError):
                await store.put_many(batch)
            relay.requests_left = None
            for name in client.scan_iter(ENTRY_PREFIX + b"*"):
                assert client.pttl(name) > 0
                assert {b"record", b"namespace", INDEX.field.encode()} <= set(client.hkeys(name))
            await until(lambda: store.get_many([key("before")]))
