"""Redis' search indexes: made once, made again when lost, and done without where there are none."""

import asyncio
import logging

import pytest
from redis_entries import (
    INDEX,
    PARTITION,
    count_stored,
    entries,
    key,
    names_of,
    opened,
    until,
)
from unit_probes import random_probes

import cacheproxy.stores.redis.index as redis_index
from cacheproxy.stores.protocol import Partition
from cacheproxy.stores.redis.store import RedisStore


async def test_four_processes_that_start_together_make_one_index(redis_url, client):
    stores = [RedisStore(redis_url) for _ in range(4)]
    await asyncio.gather(*(store.open() for store in stores))
    rows = random_probes(4)
    await asyncio.gather(
        *(store.put_many(entries([n], probes=rows[n : n + 1])) for n, store in enumerate(stores))
    )

    async def all_found():
        found = [await store.nearest(PARTITION, rows) for store in stores]
        return all(None not in row for row in found)

    await until(all_found)
    assert client.info("commandstats")["cmdstat_FT.CREATE"]["calls"] == 1
    assert not list(client.scan_iter("cp:lock:*"))
    for store in stores:
        await store.close()


async def test_the_lock_of_a_process_that_died_runs_out(redis_url, client):
    client.set(f"cp:lock:{INDEX.name}", "somebody", px=300)
    rows = random_probes(3)
    async with opened(redis_url) as store:
        await store.put_many(entries(range(3), probes=rows))
        assert await store.nearest(PARTITION, rows) == [None] * 3
        assert names_of(await store.get_many([key(0)])) == ["0"]

        async def found():
            return None not in await store.nearest(PARTITION, rows)

        await until(found)


@pytest.mark.parametrize(
    "other",
    [
        "TYPE FLOAT16 DIM 8 DISTANCE_METRIC COSINE",
        "TYPE FLOAT32 DIM 32 DISTANCE_METRIC COSINE",
        "TYPE FLOAT16 DIM 32 DISTANCE_METRIC L2",
    ],
    ids=["dimension", "type", "metric"],
)
async def test_an_index_of_another_kind_stops_lookups_by_probe_only(
    redis_url, client, caplog, monkeypatch, other
):
    create = f"FT.CREATE {INDEX.name} ON HASH PREFIX 1 cp:e3: SCHEMA namespace TAG tags TAG"
    client.execute_command(*f"{create} {INDEX.field} VECTOR HNSW 6 {other}".split())
    rows = random_probes(3)
    async with opened(redis_url) as store:
        for _ in range(3):
            await store.put_many(entries(range(3), probes=rows))
            assert await store.nearest(PARTITION, rows) == [None] * 3
        assert names_of(await store.get_many([key(1)])) == ["1"]
        assert "float16" in store.semantic_off_because
        warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
        assert len(warnings) == 1
        assert f"FT.DROPINDEX {INDEX.name}" in warnings[0].getMessage()

        client.ft(INDEX.name).dropindex()
        monkeypatch.setattr(redis_index, "_LOOK_AGAIN_S", 0.0)
        store._indexes._states.clear()

        async def found():
            return None not in await store.nearest(PARTITION, rows)

        await until(found)
        assert store.semantic_off_because is None


@pytest.mark.parametrize("first", ["lookup", "write"])
async def test_an_index_that_was_dropped_is_made_again_and_filled(redis_url, client, first):
    rows = random_probes(100)
    async with opened(redis_url) as store:
        await store.put_many(entries(range(99), probes=rows))
        client.ft(INDEX.name).dropindex()
        if first == "lookup":
            assert await store.nearest(PARTITION, rows) == [None] * 100
        await store.put_many(entries([99], probes=rows[99:]))

        async def found():
            found = await store.nearest(PARTITION, rows)
            return [row and row.key for row in found] == [key(n) for n in range(100)]

        await until(found)


async def test_after_flushall_everything_is_a_miss_and_then_works_again(redis_url, client):
    rows = random_probes(10)
    async with opened(redis_url) as store:
        await store.put_many(entries(range(10), probes=rows))
        client.flushall()
        assert await store.get_many([key(1)]) == [None]
        assert await store.nearest(PARTITION, rows) == [None] * 10

        async def found():
            written = await store.put_many(entries(range(10), probes=rows))
            return written == 10 and None not in await store.nearest(PARTITION, rows)

        await until(found)
        assert names_of(await store.get_many([key(1)])) == ["1"]


async def test_models_do_not_share_an_index(redis_url, client):
    rows = random_probes(20)
    async with opened(redis_url) as store:
        await store.put_many(entries(range(20), probes=rows))
        await store.put_many(entries(range(20, 30)))
        other = Partition(PARTITION.namespace_id, "other model")
        await store.put_many(entries(range(30, 35), partition=other, probes=rows))
    counts = {
        name: client.ft(name).info()["num_docs"] for name in client.execute_command("FT._LIST")
    }
    assert sorted(int(count) for count in counts.values()) == [5, 20]


async def test_without_the_query_engine_exact_lookups_work_and_it_is_said_once(start_redis, caplog):
    server = start_redis(search=False)
    rows = random_probes(5)
    async with opened(server.url) as store:
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert store.semantic_off_because == "this Redis has no Query Engine"
        await store.put_many(entries(range(5), probes=rows))
        assert names_of(await store.get_many([key(n) for n in range(6)])) == [*"01234", None]
        assert await store.nearest(PARTITION, rows) == [None] * 5
    assert len(caplog.records) == 1


async def test_a_server_that_comes_back_without_the_query_engine_costs_no_exact_lookup(
    start_redis,
):
    server = start_redis()
    rows = random_probes(2)
    async with opened(server.url) as store:
        await store.put_many(entries(range(2), probes=rows))
        server.kill()
        server.search = False
        server.start()
        await until(lambda: store.get_many([key("a")]))
        assert await store.nearest(PARTITION, rows) == [None, None]
        await until(lambda: store.put_many(entries(range(2), probes=rows)))
        assert names_of(await store.get_many([key(1)])) == ["1"]
        await until_off(store)
        assert await store.nearest(PARTITION, rows) == [None, None]
        assert store.semantic_off_because == "this Redis has no Query Engine"


async def until_off(store):
    async def is_off():
        return store.semantic_off_because

    await until(is_off)


async def test_in_a_database_other_than_the_first_only_exact_lookups_work(start_redis):
    server = start_redis()
    async with opened(server.url.removesuffix("/0") + "/3") as store:
        await store.put_many(entries(["a"], probes=random_probes(1)))
        assert names_of(await store.get_many([key("a")])) == ["a"]
        assert await store.nearest(PARTITION, random_probes(1)) == [None]
        assert "db" in store.semantic_off_because
    assert count_stored(server.client(db=3)) == 1
