"""Lookups by probe in the embedded store: what they find as graphs fill, empty and are unloaded."""

import numpy as np
from embedded_entries import NOW, PARTITION, entries, key, nearest_once_ready, opened
from unit_probes import random_probes, unit

from cacheproxy.stores.embedded.database import Database
from cacheproxy.stores.embedded.index import indexing
from cacheproxy.stores.embedded.index.vectors import PartitionIndex
from cacheproxy.stores.embedded.rows import partition_id, probe_hash, put_many
from cacheproxy.stores.protocol import Partition


async def test_more_partitions_than_stay_loaded_all_answer(path, monkeypatch):
    monkeypatch.setattr(indexing, "_LOADED_PARTITIONS", 20)
    probes = random_probes(100)
    partitions = [Partition(f"{n:032x}", "model") for n in range(100)]
    async with opened(path) as store:
        for partition, probe in zip(partitions, probes, strict=True):
            await store.put_many(entries([partition], partition=partition, probes=[probe]))
        for partition in partitions:
            found = await nearest_once_ready(store, probes[0], partition)
            assert found.key == key(partition)


def test_an_index_whose_entries_are_gone_gives_its_memory_back():
    """Contexts of chats come and go, and each graph that has held a node takes 50 kB."""
    probes = random_probes(2)
    connection = Database(None).connect()
    index = PartitionIndex(partition_id(PARTITION, 32), 32)
    empty = index.graph.memory_usage
    put_many(connection, entries(["gone"], probes=probes[:1]))
    assert index.catch_up(connection, NOW)
    assert index.graph.memory_usage > 10 * empty
    connection.execute("DELETE FROM entries")
    index.discard(connection, [probe_hash(probes[0])])
    assert index.graph.memory_usage == empty
    put_many(connection, entries(["new"], probes=probes[1:]))
    index.catch_up(connection, NOW)
    (found,) = index.nearest(connection, probes[1:], NOW)
    assert found.key == key("new")


async def test_recall_at_1_is_at_least_99_percent_of_20_000_clustered_probes():
    rng = np.random.default_rng(0)
    centres = unit(rng.standard_normal((400, 256)))
    noise = rng.standard_normal((20_000, 256)) / 16
    stored = unit(centres[rng.integers(0, 400, 20_000)] + 0.6 * noise)
    queries = unit(stored[rng.integers(0, 20_000, 1000)] + 0.3 * unit(noise[:1000]))
    async with opened(None) as store:
        for start in range(0, 20_000, 256):
            part = stored[start : start + 256]
            names = range(start, start + len(part))
            await store.put_many(entries(names, probes=part))
        found = await store.nearest(PARTITION, queries)
    truth = (queries @ stored.T).argmax(axis=1)
    right = sum(neighbour.key == key(place) for neighbour, place in zip(found, truth, strict=True))
    assert right >= 990


async def test_many_equal_probes_hide_no_others():
    probes = random_probes(600, 256)
    crowd = np.repeat(probes[:1], 3000, axis=0)
    async with opened(None) as store:
        await store.put_many(entries(range(300), probes=probes))
        await store.put_many(entries(range(1000, 4000), probes=crowd))
        await store.put_many(entries(range(300, 600), probes=probes[300:]))
        found = await store.nearest(PARTITION, probes[1:])
        assert [neighbour.key for neighbour in found] == [key(n) for n in range(1, 600)]


async def test_the_last_of_a_dense_crowd_is_found_when_the_others_have_gone():
    clock = [NOW]
    noise = np.random.default_rng(1).standard_normal((500, 256))
    crowd = unit(random_probes(1, 256) + 1e-3 * unit(noise))
    async with opened(None, now=lambda: clock[0]) as store:
        await store.put_many(entries(range(490), expires_at=NOW + 1, probes=crowd))
        await store.put_many(entries(range(490, 500), probes=crowd[490:]))
        clock[0] = NOW + 2
        await store.sweep()
        found = await store.nearest(PARTITION, crowd[490:])
        assert [neighbour.key for neighbour in found] == [key(n) for n in range(490, 500)]


async def test_a_graph_that_lost_most_of_its_nodes_is_built_anew_and_finds_the_rest():
    clock = [NOW]
    probes = random_probes(5000)
    async with opened(None, now=lambda: clock[0]) as store:
        await store.put_many(entries(range(4900), expires_at=NOW + 1, probes=probes))
        await store.put_many(entries(range(4900, 5000), probes=probes[4900:]))
        clock[0] = NOW + 2
        await store.sweep()
        await nearest_once_ready(store, probes[4900])
        found = await store.nearest(PARTITION, probes[4900:])
        assert [neighbour.key for neighbour in found] == [key(n) for n in range(4900, 5000)]
