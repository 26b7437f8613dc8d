"""A Redis server that is away, frozen, full, busy or garbled costs errors and no wrong answer."""

import asyncio
import time

import pytest
from redis.exceptions import ResponseError
from redis_entries import PARTITION, entries, failure_of, key, names_of, opened, until
from relay import Relay
from unit_probes import random_probes

import cacheproxy.stores.redis.records as redis_records
from cacheproxy.errors import StoreError


async def test_a_store_opens_without_its_server_and_finds_it_later(start_redis, caplog):
    server = start_redis()
    server.stop()
    async with opened(server.url) as store:
        assert caplog.records
        begun = time.monotonic()
        for _ in range(100):
            assert await failure_of(store.get_many([key("a")])) == "connection"
        assert await failure_of(store.nearest(PARTITION, random_probes(1))) == "connection"
        assert await failure_of(store.put_many(entries(["a"]))) == "connection"
        assert time.monotonic() - begun < 5
        assert len(caplog.records) < 10
        server.start()
        await until(lambda: store.get_many([key("a")]))
        await until(lambda: store.put_many(entries(["a"], probes=random_probes(1))))
        assert (await store.nearest(PARTITION, random_probes(1)))[0].key == key("a")


async def test_a_server_that_is_killed_and_comes_back_is_used_again(start_redis):
    server = start_redis()
    rows = random_probes(5)
    async with opened(server.url) as store:

        async def is_written():
            return await store.put_many(entries(range(5), probes=rows)) == 5

        for _ in range(3):
            await until(is_written)
            assert None not in await store.get_many([key(n) for n in range(5)])
            calls = [store.get_many([key(n)]) for n in range(5)]
            server.kill()
            results = await asyncio.gather(*calls, return_exceptions=True)
            assert all(isinstance(result, StoreError) for result in results)
            server.start()
            await until(lambda: store.get_many([key("a")]))

        async def found():
            return await is_written() and None not in await store.nearest(PARTITION, rows)

        await until(found)


async def test_a_frozen_server_costs_timeouts_and_no_answer_comes_late(start_redis, monkeypatch):
    monkeypatch.setattr(redis_records, "_LOOKUP_S", 0.1)
    server = start_redis()
    async with opened(server.url) as store:
        await store.put_many(entries(range(50)))
        server.pause()
        calls = [store.get_many([key(n), key(n + 1)]) for n in range(40)]
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert {result.kind for result in results} == {"timeout"}
        server.resume()
        for n in range(50):
            asked = [key(m % 50) for m in range(n, n + 3)]
            records = await until(lambda asked=asked: store.get_many(asked))
            assert names_of(records) == [str(m % 50) for m in range(n, n + 3)]


async def test_resets_garbage_and_single_bytes_are_survived(start_redis):
    server = start_redis()
    async with Relay(server.port) as relay, opened(f"redis://127.0.0.1:{relay.port}") as store:
        await store.put_many(entries(["a"], probes=random_probes(1)))

        relay.hold()
        call = asyncio.create_task(store.get_many([key("a")]))
        await asyncio.sleep(0.05)
        relay.cut()
        relay.release()
        assert await failure_of(call) == "connection"

        for garbage in (b"\0\xff" * 100, b"HTTP/1.1 400 Bad Request\r\n\r\n", b"*1\r\n:x\r\n"):
            assert names_of(await until(lambda: store.get_many([key("a")]))) == ["a"]
            relay.garbage = garbage
            assert await failure_of(store.get_many([key("a")])) == "protocol"
            relay.garbage = None

        relay.piece_bytes = 1
        assert names_of(await until(lambda: store.get_many([key("a")]))) == ["a"]
        assert (await store.nearest(PARTITION, random_probes(1)))[0].key == key("a")


async def test_a_server_out_of_memory_refuses_writes_and_answers_lookups(start_redis):
    server = start_redis()
    async with opened(server.url) as store:
        await store.put_many(entries(["a"], probes=random_probes(1)))
        server.client().config_set("maxmemory", 1)
        assert await failure_of(store.put_many(entries(["a", "b"], size=7))) == "oom"
        assert names_of(await store.get_many([key("a"), key("b")])) == ["a", None]
        assert (await store.nearest(PARTITION, random_probes(1)))[0].key == key("a")
        server.client().config_set("maxmemory", 0)
        await store.put_many(entries(["b"]))


async def test_a_replica_answers_lookups_and_refuses_writes(start_redis):
    server = start_redis()
    async with opened(server.url) as store:
        await store.put_many(entries(["a"]))
        server.client().replicaof("127.0.0.1", 1)
        assert await failure_of(store.put_many(entries(["b"]))) == "readonly"
        assert names_of(await store.get_many([key("a")])) == ["a"]
        server.client().replicaof("no", "one")
        await store.put_many(entries(["b"]))


async def test_a_server_that_is_busy_with_a_script_is_told_from_a_mistaken_call(start_redis):
    server = start_redis("--busy-reply-threshold", "50")
    async with opened(server.url) as store:
        await store.put_many(entries(["a"]))
        script = asyncio.create_task(
            asyncio.to_thread(server.client().eval, "while true do end", 0)
        )

        async def is_busy():
            try:
                await store.get_many([key("a")])
            except StoreError as error:
                return error.kind == "unavailable"

        await until(is_busy)
        server.client().script_kill()
        with pytest.raises(ResponseError, match="killed"):
            await script
        assert names_of(await store.get_many([key("a")])) == ["a"]
