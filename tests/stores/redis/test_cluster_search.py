"""Lookups by probe on a cluster: every node's entries are found, and no node is waited for."""

import asyncio

import numpy as np
import pytest
from redis.crc import key_slot
from redis_entries import PARTITION, entries, key, until
from redis_topology import ThreeNodes, wait_until
from unit_probes import random_probes

from cacheproxy.concurrency.breaker import BreakerPolicy
from cacheproxy.stores.protocol import Neighbour
from cacheproxy.stores.redis.cluster import ClusterStore
from cacheproxy.stores.redis.entries import entry_name
from cacheproxy.stores.redis.nodes.all import merged
from cacheproxy.stores.redis.nodes.naming import choose_tag, foreign_tag, index_of_name

COUNT = 60


async def filled(store) -> np.ndarray:
    """Write entries, wait until all are found, and return their probes."""
    rows = random_probes(COUNT)
    await until(lambda: written(store, rows))
    await until(lambda: all_found(store, rows))
    return rows


async def written(store, rows) -> bool:
    return await store.put_many(entries(range(COUNT), probes=rows)) == COUNT


async def all_found(store, rows) -> bool:
    found = await store.nearest(PARTITION, rows)
    return [one and one.key for one in found] == [key(n) for n in range(COUNT)]


def indexes(cluster) -> list[list[bytes]]:
    return [cluster.ask(node, "FT._LIST") for node in cluster.nodes]


async def test_each_node_has_one_index_which_all_processes_use(cluster, open_store):
    stores = [await open_store(cluster) for _ in range(3)]
    rows = random_probes(COUNT)
    await asyncio.gather(*(written(store, rows) for store in stores))
    for store in stores:
        await until(lambda store=store: all_found(store, rows))
    assert [len(names) for names in indexes(cluster)] == [1, 1, 1]
    counts = [
        cluster.ask(node, "FT.SEARCH", *names, "*", "LIMIT", 0, 0)[0]
        for node, names in zip(cluster.nodes, indexes(cluster), strict=True)
    ]
    assert sum(counts) == COUNT
    assert min(counts) > 5
    assert stores[0].reach == "all nodes are asked"
    assert stores[0].stats().unanswered == 0
    assert stores[0].stats().index.is_up


async def test_an_index_that_was_dropped_is_made_again_on_its_node(cluster, open_store):
    store = await open_store(cluster)
    rows = await filled(store)
    names = indexes(cluster)
    cluster.ask(cluster.nodes[1], "FT.DROPINDEX", *names[1])
    await until(lambda: all_found(store, rows))
    assert indexes(cluster) == names


async def test_figures_of_the_indexes_are_those_of_all_nodes(cluster, open_store):
    store = await open_store(cluster)
    await filled(store)

    async def all_scanned():
        # A node indexes what is written at once, but first scans what it held before.
        for search in store._search._known().values():
            await search.watch.look()
        return store.stats().index.indexed_ratio == 1

    await until(all_scanned)
    stats = store.stats().index
    assert stats.documents == COUNT
    assert stats.failures == 0


async def test_a_frozen_node_costs_its_entries_and_after_a_few_lookups_no_time(
    breakable_cluster, open_store
):
    cluster = breakable_cluster
    store = await open_store(cluster, deadline_s=0.2)
    rows = await filled(store)
    frozen = cluster.nodes[2]
    on_frozen = {n for n in range(COUNT) if cluster.node_of(entry_name(key(n))) is frozen}
    frozen.pause()
    try:
        for n in range(BreakerPolicy().failures_in_a_row):
            (record,) = await store.get_many([key(n)])
            assert (record is None) == (n in on_frozen)
            await store.nearest(PARTITION, rows[n : n + 1])
        for _ in range(BreakerPolicy().failures_in_a_row):
            await store.get_many([key(n) for n in range(COUNT)])
        gates = [one.gate.is_open for one in store._search._known().values()]
        assert sorted(gates) == [False, True, True]
        missed = store.stats().unanswered
        found = await store.nearest(PARTITION, rows)
        for n, one in enumerate(found):
            assert (one.key == key(n)) == (n not in on_frozen)
        records = await store.get_many([key(n) for n in range(COUNT)])
        assert {n for n, one in enumerate(records) if one is None} == on_frozen
        assert store.stats().unanswered == missed + 2
    finally:
        frozen.resume()
    await until(lambda: all_found(store, rows))

    async def all_read():
        return None not in await store.get_many([key(n) for n in range(COUNT)])

    await until(all_read)


async def test_a_node_that_was_killed_comes_back_empty_and_is_indexed_again(
    breakable_cluster, open_store
):
    cluster = breakable_cluster
    store = await open_store(cluster)
    rows = await filled(store)
    cluster.nodes[0].kill()

    async def others_are_found():
        return sum(one is not None for one in await store.nearest(PARTITION, rows)) == COUNT

    await until(others_are_found)  # each probe has a neighbour somewhere
    cluster.nodes[0].start()
    await asyncio.to_thread(wait_until, cluster.is_well)
    await until(lambda: written(store, rows))
    await until(lambda: all_found(store, rows))


async def test_the_slot_of_an_index_name_may_move(breakable_cluster, open_store):
    cluster = breakable_cluster
    store = await open_store(cluster)
    rows = await filled(store)
    (name,) = cluster.ask(cluster.nodes[0], "FT._LIST")
    cluster.move_slot(name, cluster.nodes[1])
    await until(lambda: written(store, rows))
    await until(lambda: all_found(store, rows))
    names = cluster.ask(cluster.nodes[0], "FT._LIST")
    assert name in names
    assert len(names) == 2


async def test_without_the_query_engine_entries_are_found_by_key(start_cluster_without_search):
    cluster = start_cluster_without_search
    store = ClusterStore(cluster.url)
    await store.open()
    rows = random_probes(COUNT)
    assert await written(store, rows)
    assert await store.nearest(PARTITION, rows[:2]) == [None, None]
    assert store.stats().index.off_because == "this Redis has no Query Engine"
    assert None not in await store.get_many([key(n) for n in range(COUNT)])
    await store.close()


@pytest.fixture
def start_cluster_without_search(redis_cluster):
    cluster = ThreeNodes(search=False)  # a Redis is there, as the shared one runs
    cluster.start()
    yield cluster
    cluster.remove()


def test_answers_of_nodes_are_merged_best_first_and_each_key_once():
    a, b, c = (
        Neighbour(name, b"", score) for name, score in ((b"a", 0.9), (b"b", 0.8), (b"c", 0.7))
    )
    again = a._replace(score=0.5)
    assert merged([[b, again], [], [a, c]]) == [a, b, c]
    assert merged([[], [c]]) == [c]
    assert merged([[], []]) == []


def test_a_tag_is_in_a_slot_of_its_node_and_of_existing_ones_if_there_are_any():
    slots = range(5_461, 10_923)
    tag = choose_tag(slots, [])
    assert key_slot(tag.encode()) in slots[-300:]
    other = next(str(n) for n in range(1_000) if key_slot(str(n).encode()) in slots[:100])
    name = f"cp:i3:{{{other}}}:0123456789abcdef:32"
    assert choose_tag(slots, [name, "another's index"]) == other
    assert choose_tag(range(100), [name]) != other
    assert key_slot(foreign_tag(slots).encode()) not in slots
    assert foreign_tag(range(16_384)) is None


def test_an_index_is_known_by_its_name():
    for name in ("cp:i3:{24}:0123456789abcdef:32", "cp:i3:0123456789abcdef:32"):
        assert index_of_name(name).name == name
    assert index_of_name("somebody else's") is None
