"""What is special to the store on a cluster: nodes that change, and purges without transactions."""

import asyncio
import hashlib
import time

import pytest
from redis_entries import failure_of

from cacheproxy.errors import ConfigError, StoreError
from cacheproxy.stores.protocol import Entry, Partition
from cacheproxy.stores.purges import Scope
from cacheproxy.stores.redis.entries import entry_name
from cacheproxy.stores.redis.purging.floors import GENERATION
from cacheproxy.stores.redis.url import ClusterNodes

PARTITION = Partition("0123456789abcdef" * 2, "model")
EVERYTHING = Scope(PARTITION.namespace_id)


def key(name) -> bytes:
    return hashlib.sha256(str(name).encode()).digest()


def entries(names, *, ttl_s=7_200.0, generation=0):
    expires_at = time.time() + ttl_s
    return [
        Entry(key(name), PARTITION, str(name).encode(), expires_at, ("docs",), None, generation)
        for name in names
    ]


async def until(condition):
    """Wait until the condition, a coroutine function, holds; return what it gave."""
    async with asyncio.timeout(30):
        while True:
            try:
                if value := await condition():
                    return value
            except (StoreError, TimeoutError):
                pass
            await asyncio.sleep(0.02)


async def test_entries_are_on_all_nodes_and_none_is_without_its_ttl(cluster, open_store):
    store = await open_store(cluster)
    assert await store.put_many(entries(range(200))) == 200
    assert await store.put_many(entries(range(200, 300), ttl_s=60)) == 100
    await store.purge(Scope(PARTITION.namespace_id, key=key(0)))
    names = cluster.names()
    for node in cluster.nodes:
        assert sum(holder is node for holder in names.values()) > 50
    lives = {name: cluster.ask(node, "PTTL", name) for name, node in names.items()}
    assert all(life > 0 for life in lives.values())
    assert lives[entry_name(key(1))] > 7_100_000
    assert lives[entry_name(key(250))] <= 60_000


async def test_an_entry_that_a_purge_overtakes_is_not_left(cluster, open_store, monkeypatch):
    store, other = await open_store(cluster), await open_store(cluster)
    allow, asked = store._purging.allow, []

    async def allow_and_be_late(of):
        asked.append(await allow(of))
        if len(asked) == 1:
            await other.purge(EVERYTHING)
        return asked[-1]

    monkeypatch.setattr(store._purging, "allow", allow_and_be_late)
    assert await store.put_many(entries(range(20))) == 0
    assert asked == [[True] * 20, [False] * 20]
    assert (await other.census()).entries == 0


async def test_what_a_writer_that_died_leaves_of_a_purge_is_never_served_and_soon_gone(
    cluster, open_store, monkeypatch
):
    store, other = await open_store(cluster), await open_store(cluster)
    allow, asked = store._purging.allow, []

    async def allow_once(of):
        if asked:
            raise StoreError("killed here", "connection")
        asked.append(await allow(of))
        await other.purge(EVERYTHING)
        return asked[0]

    with monkeypatch.context() as patch:
        patch.setattr(store._purging, "allow", allow_once)
        with pytest.raises(StoreError):
            await store.put_many(entries(range(20)))
    names = [name for name in cluster.names() if name.startswith(b"cp:e")]
    assert len(names) == 20
    assert all(cluster.ask(cluster.node_of(name), "PTTL", name) <= 1_800_000 for name in names)
    for reader in (other, await open_store(cluster)):
        assert await reader.get_many([key(n) for n in range(20)]) == [None] * 20
    # Had it been a lost connection only, the next attempt clears up.
    assert await store.put_many(entries(range(20))) == 0
    assert not [name for name in cluster.names() if name.startswith(b"cp:e")]


async def test_a_slot_that_moves_is_followed(breakable_cluster, open_store):
    cluster = breakable_cluster
    store = await open_store(cluster)
    name = entry_name(key("a"))
    target = next(node for node in cluster.nodes if node is not cluster.node_of(name))
    cluster.move_slot(name, target)
    assert await store.get_many([key("a"), key("b")]) == [None, None]

    async def is_written():
        return await store.put_many(entries(["a"])) == 1

    await until(is_written)
    assert cluster.names()[name] is target
    assert await store.get_many([key("a")]) == [b"a"]

    # The purges' own state moves, too.
    holder = next(
        node for node in cluster.nodes if node is not cluster.node_of(GENERATION.encode())
    )
    cluster.move_slot(GENERATION.encode(), holder)

    async def is_purged():
        return await store.purge(EVERYTHING) == 1

    await until(is_purged)
    assert cluster.names()[GENERATION.encode()] is holder
    assert await store.get_many([key("a")]) == [None]


async def test_a_store_that_opens_before_its_cluster_finds_it(breakable_cluster, open_store):
    cluster = breakable_cluster
    for node in cluster.nodes:
        node.kill()
    store = await open_store(cluster)
    with pytest.raises(StoreError) as error:
        await store.get_many([key("a")])
    assert error.value.kind == "connection"
    for node in cluster.nodes:
        node.start()

    async def is_written():
        return await store.put_many(entries(["a"])) == 1 and store.purges.is_listening

    await until(is_written)
    assert await store.get_many([key("a")]) == [b"a"]


async def test_a_replica_takes_over_from_a_frozen_node(breakable_cluster, open_store):
    cluster = breakable_cluster
    store, other = await open_store(cluster), await open_store(cluster)
    await store.purge(EVERYTHING)
    # It has the purges' own state, and the subscriptions.
    old = cluster.names()[GENERATION.encode()]
    replica = await asyncio.to_thread(cluster.add_replica, old)
    old.pause()
    link = store._link.masters["127.0.0.1", old.port]
    idle = len(link._idle)
    waiting = asyncio.create_task(store.purge(EVERYTHING))
    while len(link._idle) == idle and not waiting.done():  # until it has asked
        await asyncio.sleep(0)

    async def is_followed():
        # Within the deadline of a lookup, by which a frozen node is given up.
        async with asyncio.timeout(0.05):
            await store.get_many([key(n) for n in range(20)])
        is_heard = other.purges.is_listening and store.purges.is_listening
        return is_heard and await store.purge(EVERYTHING) == 0

    await until(is_followed)
    assert waiting.done()  # it does not wait for the old one any longer
    assert await failure_of(waiting) in ("connection", "unavailable")
    assert GENERATION.encode() in cluster.ask(replica, "KEYS", "*")
    since = other.purges.generation
    await store.purge(EVERYTHING)

    async def is_heard():
        return other.purges.generation > since

    await until(is_heard)
    old.resume()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("redis+cluster://:secret@one:1/2", "database"),
        ("redis+cluster://:secret@one:1,", "no host"),
        ("redis+cluster://:secret@one:x", "an invalid port"),
        ("redis+cluster://:sec#ret@one:1", "store: "),
        ("redis+cluster://:secret@one:1?no_option=1", "cannot be read"),
    ],
)
def test_a_mistake_in_a_url_is_told_without_its_password(url, says):
    with pytest.raises(ConfigError) as mistake:
        ClusterNodes(url)
    assert says in str(mistake.value)
    assert "sec" not in str(mistake.value)


def test_every_node_is_connected_to_as_the_url_says():
    nodes = ClusterNodes("rediss+cluster://proxy:p%40ss@one:1,two/0?ssl_ca_certs=/ca.pem")
    assert nodes.seeds == [("one", 1), ("two", 6_379)]
    connection = nodes.make_connection(("three", 3))
    assert (connection.host, connection.port) == ("three", 3)
    assert (connection.username, connection.password) == ("proxy", "p@ss")
    assert connection.ssl_context.ca_certs == "/ca.pem"
