"""What is special to the Redis store: its keys, its indexes, and a server that fails."""

import asyncio
import hashlib
import itertools
import logging
import subprocess
import time
from contextlib import asynccontextmanager, suppress

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis
from redis.exceptions import ResponseError
from redis_server import free_port
from relay import Relay

import cacheproxy.stores.redis.index as redis_index
import cacheproxy.stores.redis.records as redis_records
from cacheproxy.errors import ConfigError, StoreError
from cacheproxy.stores.protocol import Entry, Partition
from cacheproxy.stores.purges import Scope
from cacheproxy.stores.redis.entries import entry_name
from cacheproxy.stores.redis.index import ENTRY_PREFIX, ProbeIndex
from cacheproxy.stores.redis.search import Search
from cacheproxy.stores.redis.store import RedisStore

DIMENSIONS = 32
PARTITION = Partition("0123456789abcdef" * 2, "model")
INDEX = ProbeIndex(PARTITION.fingerprint, DIMENSIONS)


def key(name) -> bytes:
    return hashlib.sha256(str(name).encode()).digest()


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def random_probes(count: int, seed: int = 0) -> np.ndarray:
    return unit(np.random.default_rng(seed).standard_normal((count, DIMENSIONS)))


def entries(names, *, ttl_s=60.0, partition=PARTITION, probes=None, size=100, tags=()):
    """Return entries whose record begins with their name."""
    rows = itertools.repeat(None) if probes is None else probes
    return [
        Entry(
            key(name),
            partition,
            str(name).encode().ljust(size),
            time.time() + ttl_s,
            tags,
            probe,
        )
        for name, probe in zip(names, rows, strict=False)
    ]


def names_of(records) -> list[str | None]:
    return [None if record is None else record.decode().strip() for record in records]


@asynccontextmanager
async def opened(url: str, **more):
    store = RedisStore(url, **more)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def until(condition, seconds: float = 20):
    """Wait until the condition, a coroutine function, holds; return what it gave."""
    async with asyncio.timeout(seconds):
        while True:
            try:
                if value := await condition():
                    return value
            except StoreError:
                pass
            await asyncio.sleep(0.01)


async def failure_of(call) -> str:
    with pytest.raises(StoreError) as error:
        await call
    return error.value.kind


@pytest.fixture
def client(redis_url):
    """A client of the shared server, whose database is empty."""
    with Redis.from_url(redis_url, protocol=2) as client:
        client.flushall()
        client.config_resetstat()
        yield client


# Entries


async def test_no_key_is_ever_without_a_ttl(redis_url, client):
    async with opened(redis_url) as store:
        await store.put_many(entries(range(300), probes=random_probes(300), tags=("a", "b")))
        await store.put_many(entries(range(100, 400)))
        await store.nearest(PARTITION, random_probes(3))
        await store.put_many(entries(range(50), ttl_s=-1))
    ttls = {name: client.pttl(name) for name in client.scan_iter()}
    assert len(ttls) == 350
    assert all(0 < ttl <= 60_000 for ttl in ttls.values())


async def test_an_entry_that_expires_leaves_keys_and_index(redis_url, client):
    async with opened(redis_url) as store:
        await store.put_many(entries(range(100), ttl_s=0.3, probes=random_probes(100)))

        async def is_empty():
            return client.dbsize() == 0

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
        assert server.client().dbsize() == 201
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
        async with opened(redis_url) as store:
            client.flushall()
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


# Indexes


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
    create = f"FT.CREATE {INDEX.name} ON HASH PREFIX 1 cp:e2: SCHEMA namespace TAG tags TAG"
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
        await store.put_many(entries(range(10), probes=rows))

        async def found():
            return None not in await store.nearest(PARTITION, rows)

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
        await store.put_many(entries(range(2), probes=rows))
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
    assert server.client(db=3).dbsize() == 1


# A server that fails


async def test_a_store_opens_without_its_server_and_finds_it_later(start_redis, caplog):
    server = start_redis()
    server.stop()
    async with opened(server.url) as store:
        assert len(caplog.records) == 1
        begun = time.monotonic()
        for _ in range(100):
            assert await failure_of(store.get_many([key("a")])) == "connection"
        assert await failure_of(store.nearest(PARTITION, random_probes(1))) == "connection"
        assert await failure_of(store.put_many(entries(["a"]))) == "connection"
        assert time.monotonic() - begun < 5
        server.start()
        await until(lambda: store.get_many([key("a")]))
        await store.put_many(entries(["a"], probes=random_probes(1)))
        assert (await store.nearest(PARTITION, random_probes(1)))[0].key == key("a")


async def test_a_server_that_is_killed_and_comes_back_is_used_again(start_redis):
    server = start_redis()
    rows = random_probes(5)
    async with opened(server.url) as store:
        for _ in range(3):
            await store.put_many(entries(range(5), probes=rows))
            assert None not in await store.get_many([key(n) for n in range(5)])
            calls = [store.get_many([key(n)]) for n in range(5)]
            server.kill()
            results = await asyncio.gather(*calls, return_exceptions=True)
            assert all(isinstance(result, StoreError) for result in results)
            server.start()
            await until(lambda: store.get_many([key("a")]))
        await store.put_many(entries(range(5), probes=rows))

        async def found():
            return None not in await store.nearest(PARTITION, rows)

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


async def test_answers_belong_to_their_questions_whatever_was_cancelled(start_redis):
    server = start_redis()
    chance = np.random.default_rng(7)
    rows = random_probes(60)
    async with Relay(server.port) as relay, opened(f"redis://127.0.0.1:{relay.port}") as store:
        await store.put_many(entries(range(60), probes=rows, size=5000))
        relay.delay_s, relay.piece_bytes = 0.001, 3000
        right = 0

        async def ask(n: int) -> None:
            nonlocal right
            if n % 3:
                asked = [(n + step) % 60 for step in range(chance.integers(1, 5))]
                records = await store.get_many([key(m) for m in asked])
                assert names_of(records) == [str(m) for m in asked]
            else:
                (found,) = await store.nearest(PARTITION, rows[n % 60][None])
                assert found.key == key(n % 60)
            right += 1

        async def ask_and_give_up(n: int) -> None:
            task = asyncio.create_task(ask(n))
            await asyncio.wait({task}, timeout=chance.choice([0.0005, 0.002, 0.004, 1]))
            task.cancel()
            await asyncio.wait({task})
            if not task.cancelled():
                task.result()

        for start in range(0, 600, 20):
            await asyncio.gather(*(ask_and_give_up(n) for n in range(start, start + 20)))
        assert right > 50
        relay.delay_s = 0.0
        for n in range(60):
            await ask(n)


async def test_a_call_cancelled_in_mid_reply_closes_its_connection(start_redis):
    server = start_redis()
    async with (
        Relay(server.port) as relay,
        opened(f"redis://127.0.0.1:{relay.port}", max_connections=1) as store,
    ):
        await store.put_many(entries(["a", "b"], size=200_000))
        assert relay.accepted <= 3
        before = relay.accepted
        relay.piece_bytes = 1000
        relay.delay_s = 0.005
        call = asyncio.create_task(store.get_many([key("a")]))
        await asyncio.sleep(0.1)
        call.cancel()
        await asyncio.wait({call})
        assert call.cancelled()
        relay.piece_bytes, relay.delay_s = 65536, 0.0
        assert names_of(await store.get_many([key("b")])) == ["b"]
        assert relay.accepted == before + 1


async def test_callers_that_soon_give_up_still_get_a_connection_in_the_end(start_redis):
    server = start_redis()
    async with Relay(server.port) as relay:
        relay.greeting_s = 0.2
        async with opened(f"redis://127.0.0.1:{relay.port}") as store:
            relay.cut()
            gave_up = 0

            async def answered():
                nonlocal gave_up
                try:
                    async with asyncio.timeout(0.05):
                        return await store.get_many([key("a")])
                except TimeoutError:
                    gave_up += 1

            assert await until(answered) == [None]
            assert gave_up


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


async def test_a_server_busy_with_a_script_is_distinguished_from_an_invalid_call(start_redis):
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


async def test_a_wrong_password_is_told_and_a_right_one_works(start_redis):
    user = ("--user", "proxy", "on", ">hunter2", "~cp:*", "&cp:*", "+@all")
    server = start_redis("--requirepass", "secret", *user)
    for login in ("", ":wrong@", "nobody:hunter2@"):
        async with opened(f"redis://{login}127.0.0.1:{server.port}") as store:
            assert await failure_of(store.get_many([key("a")])) == "noauth"
    for login in (":secret@", "proxy:hunter2@"):
        async with opened(f"redis://{login}127.0.0.1:{server.port}") as store:
            await store.put_many(entries(["a"], probes=random_probes(1)))
            assert (await store.nearest(PARTITION, random_probes(1)))[0].key == key("a")


async def test_a_user_may_be_confined_to_the_commands_that_are_used(start_redis):
    commands = (
        "hget hmget hset del exists get set pexpireat multi exec watch unwatch scan time expire "
        "zadd zmscore zremrangebyscore sadd srem smembers publish subscribe ping info "
        "ft.search ft.create ft.dropindex ft.info ft._list client|setinfo"
    )
    rules = [f"+{command}" for command in commands.split()]
    server = start_redis("--user", "proxy", "on", ">hunter2", "~cp:*", "&cp:*", *rules)
    async with opened(f"redis://proxy:hunter2@127.0.0.1:{server.port}") as store:
        await store.put_many(entries(["a"], probes=random_probes(1)))
        assert (await store.nearest(PARTITION, random_probes(1)))[0].key == key("a")
        await store.put_many(entries(["a"]))
        assert names_of(await store.get_many([key("a")])) == ["a"]
        assert (await store.census()).size_bytes > 0
        assert await store.purge(Scope(PARTITION.namespace_id, tag="t")) == 0
        assert await store.purge(Scope(PARTITION.namespace_id, key=key("a"))) == 1
    with pytest.raises(ResponseError):
        server.client(username="proxy", password="hunter2").flushall()


async def test_a_unix_socket_does_as_well(start_redis):
    server = start_redis()
    async with opened(f"unix://{server.socket}") as store:
        await store.put_many(entries(["a"]))
        assert names_of(await store.get_many([key("a")])) == ["a"]


@pytest.fixture
def certificate(tmp_path):
    """A certificate for 127.0.0.1 and its key."""
    certificate, private = tmp_path / "certificate.pem", tmp_path / "key.pem"
    command = "openssl req -x509 -nodes -days 2 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1"
    command += " -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
    files = ["-keyout", str(private), "-out", str(certificate)]
    subprocess.run([*command.split(), *files], check=True, capture_output=True)
    return certificate, private


async def test_tls_works_with_a_known_certificate_and_only_then(start_redis, certificate):
    public, private = certificate
    port = free_port()
    tls = {"port": port, "cert-file": public, "key-file": private, "ca-cert-file": public}
    flags = [part for name, value in tls.items() for part in (f"--tls-{name}", str(value))]
    start_redis(*flags, "--tls-auth-clients", "no")
    async with opened(f"rediss://127.0.0.1:{port}?ssl_ca_certs={public}") as store:
        await store.put_many(entries(["a"], probes=random_probes(1)))
        assert names_of(await store.get_many([key("a")])) == ["a"]
        assert (await store.nearest(PARTITION, random_probes(1)))[0].key == key("a")
    async with opened(f"rediss://127.0.0.1:{port}") as store:
        assert await failure_of(store.get_many([key("a")])) == "connection"


async def test_more_calls_than_connections_wait_for_their_turn(start_redis):
    server = start_redis()
    async with opened(server.url, max_connections=4) as store:
        await store.put_many(entries(range(50)))
        records = await asyncio.gather(*(store.get_many([key(n % 50)]) for n in range(500)))
        assert [names_of(record)[0] for record in records] == [str(n % 50) for n in range(500)]
        # One more is kept for making indexes, one listens, and one is the test's.
        assert len(server.client().client_list()) <= 4 + 3


@pytest.mark.parametrize("option", ["decode_responses=true", "protocol=3", "socket_timeout=0.0001"])
async def test_options_in_the_url_cannot_change_what_is_read(start_redis, option):
    server = start_redis()
    async with opened(f"{server.url}?{option}") as store:
        await store.put_many(entries(["a"], probes=random_probes(1)))
        assert names_of(await store.get_many([key("a")])) == ["a"]
        assert (await store.nearest(PARTITION, random_probes(1)))[0].key == key("a")


def test_a_url_that_cannot_be_read_is_a_mistake():
    for url in ("redis://host:port", "http://secret@127.0.0.1", "redis://:secret/#@127.0.0.1"):
        with pytest.raises(ConfigError) as mistake:
            RedisStore(url)
        assert "secret" not in str(mistake.value)
