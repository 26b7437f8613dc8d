"""Purges over a failover: replicas confirm them, and what a new master lacks is repeated."""

import asyncio

import pytest
from opened_stores import key
from redis_entries import PARTITION, entries, failure_of, opened, until

import cacheproxy.stores.redis.purging.replicas as replicas
from cacheproxy.stores.purges import Scope
from cacheproxy.stores.redis.entries import entry_name
from cacheproxy.stores.redis.link import Part
from cacheproxy.stores.redis.purging.floors import FLOORS, GENERATION, RUNNING
from cacheproxy.stores.redis.purging.known import KnownPurges
from cacheproxy.stores.redis.purging.notices import scope_name
from cacheproxy.stores.redis.purging.replicas import Replicas

SCOPES = [
    Scope(PARTITION.namespace_id),
    Scope(PARTITION.namespace_id, tag="docs"),
    Scope(PARTITION.namespace_id, key=key("a")),
]


def as_begun(names, generation):
    return [one._replace(generation=generation) for one in entries(names, tags=("docs",))]


@pytest.mark.parametrize("scope", SCOPES, ids=["namespace", "tag", "key"])
async def test_a_master_that_lagged_behind_is_told_of_purges_and_serves_nothing_purged(
    redis_url, client, scope, caplog
):
    async with opened(redis_url) as one, opened(redis_url) as other:
        before = one.purges.generation
        assert await one.put_many(as_begun(["a"], before)) == 1
        kept = {name: client.dump(name) for name in (entry_name(key("a")), FLOORS, GENERATION)}
        assert await one.purge(scope) == 1

        async def is_heard():
            return other.purges.generation == one.purges.generation

        await until(is_heard)
        newest = one.purges.generation
        for name, dumped in kept.items():  # what a replica has that received nothing since
            client.restore(name, 60_000, dumped, replace=True)
        for store in (one, other):
            assert await store.get_many([key("a")]) == [None]
            assert await store.put_many(as_begun(["a"], before)) == 0

        client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")

        async def is_repeated():
            return not client.exists(entry_name(key("a"))) and not client.exists(RUNNING)

        await until(is_repeated)
        assert client.zscore(FLOORS, scope_name(scope)) == newest == int(client.get(GENERATION))
        assert "does not know of 1 purges" in caplog.text
        async with opened(redis_url) as late:
            assert late.purges.generation == newest
            assert await late.get_many([key("a")]) == [None]
            assert await late.put_many(as_begun(["a"], before)) == 0
            assert await late.put_many(as_begun(["a"], newest)) == 1
            assert await one.get_many([key("a")]) != [None]


async def test_a_purge_is_acknowledged_when_the_replicas_have_it_and_not_before(
    start_redis, monkeypatch
):
    monkeypatch.setattr(replicas, "CONFIRM_S", 0.3)
    master = start_redis("--repl-diskless-sync-delay", "0")
    replica = start_redis("--replicaof", "127.0.0.1", str(master.port))

    async def is_up_to_date():
        with replica.client() as client:
            return client.info("replication")["master_link_status"] == "up"

    await until(is_up_to_date)
    async with opened(master.url) as store:
        for scope in SCOPES:
            await store.put_many(as_begun(["a"], store.purges.generation))

            async def is_purged(scope=scope):
                return await store.purge(scope) >= 0

            await until(is_purged)
            with replica.client() as client:
                assert client.exists(entry_name(key("a"))) == 0
                assert client.zscore(FLOORS, scope_name(scope)) == store.purges.generation

        await store.put_many(as_begun(["a"], store.purges.generation))
        replica.pause()
        for scope in SCOPES:
            assert await failure_of(store.purge(scope)) == "unavailable"
            assert await store.get_many([key("a")]) == [None]
        replica.resume()

        async def is_repeated():
            return [await store.purge(scope) for scope in SCOPES] == [0, 0, 0]

        await until(is_repeated)
        # It may be the master by now, which this one would not know.
        replica.kill()
        assert await failure_of(store.purge(SCOPES[0])) in ("unavailable", "timeout")
        monkeypatch.setattr(replicas, "_BELIEVED_GONE_S", 0.0)
        await until(is_repeated)


async def test_another_masters_replicas_are_not_expected_of_this_one(start_redis):
    first, second = start_redis(), start_redis()
    async with opened(first.url) as one, opened(second.url) as other:
        seen = Replicas()
        (part,) = one._link.tagged_parts()
        await seen.look(part)
        seen._seen = {history: each._replace(most=1) for history, each in seen._seen.items()}
        await seen.confirm(Part(other._link, "shared"))
        assert await seen._count(part) == (0, 1)


async def test_what_is_written_where_replicas_are_waited_for_is_gone_at_once(
    redis_url, client, monkeypatch
):
    monkeypatch.setattr(replicas, "CONFIRM_S", 0.1)
    async with opened(redis_url) as store:
        (part,) = store._link.tagged_parts()
        seen = Replicas()
        await seen.look(part)
        seen._seen = {history: each._replace(most=1) for history, each in seen._seen.items()}
        waiting = asyncio.create_task(seen.confirm(part))
        assert await failure_of(waiting) == "unavailable"
        assert client.keys("*written*") == []


def test_purges_older_than_an_hour_are_forgotten():
    now = 0.0
    known = KnownPurges(lambda: now)
    newest = 10**16
    for n in range(5_000):
        known.remember(f"old {n}", newest - 3_700_000_000 + n)
    known.remember("new", newest)
    for n in range(8_000):
        known.remember(f"newer {n}", newest + n)
    assert known.purged_at("new") == newest
    assert known.purged_at("old 0") == 0
    missing = known.missing_in({"newer 7": newest + 7, "newer 8": newest}, newest + 3_600_000_000)
    assert set(missing) == {f"newer {n}" for n in range(1, 8_000) if n != 7}
    now = 3_599.0
    assert known.is_any
    now = 3_600.0
    assert not known.is_any
