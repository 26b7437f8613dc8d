"""Lookups by probe in the embedded store: what they find as graphs fill, empty and are unloaded."""

import numpy as np
from embedded_entries import NOW, PARTITION, entries, key, nearest_once_ready, opened
from hypothesis import given
from hypothesis import strategies as st
from unit_probes import random_probes, unit

from cacheproxy.stores.embedded.database import Database
from cacheproxy.stores.embedded.index import indexing
from cacheproxy.stores.embedded.index.codes import Codes
from cacheproxy.stores.embedded.index.nodes import Few, Graph
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


def test_a_partition_takes_memory_for_what_it_has_and_gives_it_back():
    """Contexts of chats come and go, most with one entry; a graph takes 50 kB for its first."""
    probes = random_probes(601)
    connection = Database(None).connect()
    index = PartitionIndex(partition_id(PARTITION, 32), 32)

    def write(numbers: range) -> None:
        put_many(connection, entries(numbers, probes=probes[numbers.start :]))
        while not index.catch_up(connection, NOW):
            pass
        found = index.nearest(connection, probes[numbers.start : numbers.stop], NOW)
        assert [one.key for one in found] == [key(n) for n in numbers]

    write(range(1))
    assert 0 < index.size_bytes < 100
    write(range(1, 600))
    assert index.size_bytes > 50_000
    connection.execute("DELETE FROM entries")
    index.discard(connection, [probe_hash(probe) for probe in probes])
    assert index.size_bytes == 0
    write(range(600, 601))
    assert index.size_bytes < 100


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["add", "remove"]), st.sets(st.integers(0, 40), max_size=12))
    )
)
def test_few_nodes_and_a_graph_of_them_are_the_same(steps):
    rows = Codes().of(random_probes(41, 8))
    both, there = (Few(8), Graph(8)), set()
    for step, names in steps:
        changed = names - there if step == "add" else names
        keys = np.array(sorted(changed), np.uint64)
        for nodes in both:
            nodes.add(keys, rows[sorted(changed)]) if step == "add" else nodes.remove(keys)
        there = there | changed if step == "add" else there - changed
        every = np.arange(41, dtype=np.uint64)
        held = np.array(sorted(there), np.uint64)
        for nodes in both:
            assert len(nodes) == len(there)
            assert sorted(nodes.keys.tolist()) == sorted(there)
            assert nodes.contains(every).tolist() == [n in there for n in range(41)]
            assert (nodes.codes_of(held) == rows[sorted(there)]).all()
        for few, graph in zip(*(nodes.search(rows, 3, 64) for nodes in both), strict=True):
            assert few.tolist() == graph.tolist()


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
