"""The embedded store's bounds: eviction of the oldest unused, expiry, a file that shrinks again."""

import pytest
from embedded_entries import LATER, NOW, PARTITION, entries, key, opened
from unit_probes import random_probes

from cacheproxy.keys import Namespace, tenant_id
from cacheproxy.stores.embedded.shares import StoreTerms
from cacheproxy.stores.protocol import Partition
from cacheproxy.stores.purges import Scope

QUIET, HOSTILE = (Partition(Namespace(name, "n").id, "model") for name in ("quiet", "hostile"))


@pytest.mark.parametrize("where", ["file", "memory"])
async def test_beyond_max_bytes_the_oldest_entries_go_first(path, where):
    async with opened(path if where == "file" else None, max_bytes=2 * 2**20) as store:
        for start in range(0, 4000, 100):
            await store.put_many(entries(range(start, start + 100), b"x" * 1000))
            assert store.stats().live_bytes <= 2 * 2**20
        found = await store.get_many([key(n) for n in range(4000)])
        kept = [n for n, record in enumerate(found) if record is not None]
        assert 500 < len(kept) < 2000
        assert kept == list(range(4000 - len(kept), 4000))
        assert store.stats().evicted == 4000 - len(kept)
        assert store.stats().entries == len(kept)


async def test_a_store_reopened_with_a_much_smaller_bound_evicts_in_pieces_between_other_calls(
    path,
):
    async with opened(path) as store:
        for start in range(0, 8000, 2000):
            await store.put_many(entries(range(start, start + 2000), b"x" * 2000))
    async with opened(path, max_bytes=2**20) as store:
        await store.put_many(entries(["written meanwhile"]))
        assert store.stats().evicted < 4000
        assert await store.purge(Scope(PARTITION.namespace_id, key=key("written meanwhile"))) == 1
        assert store.stats().evicted < 6000
        await store.sweep()
        assert store.stats().live_bytes <= 2**20
        assert await store.get_many([key(0), key(7999)]) == [None, b"x" * 2000]


async def test_an_entry_written_again_is_young_again(path):
    async with opened(path, max_bytes=2**20) as store:
        await store.put_many(entries(["kept", "lost"]))
        for start in range(0, 2000, 100):
            await store.put_many(entries(range(start, start + 100), b"x" * 1000))
            await store.put_many(entries(["kept"]))
        assert await store.get_many([key("kept"), key("lost")]) == [b"record", None]


async def test_entries_in_use_outlive_younger_ones_by_key_and_by_probe(path):
    probes = random_probes(40)
    async with opened(path, max_bytes=2**20) as store:
        await store.put_many(entries(range(40), b"x" * 1000, probes=probes))
        for start in range(100, 3000, 100):
            await store.put_many(entries(range(start, start + 100), b"x" * 1000))
            assert None not in await store.get_many([key(n) for n in range(10)])
            found = await store.nearest(PARTITION, probes[10:20])
            assert [one.key for one in found] == [key(n) for n in range(10, 20)]
        assert store.stats().live_bytes <= 2**20
        # What is no longer used goes in the end, and its ids are nobody else's.
        for start in range(3000, 9000, 100):
            await store.put_many(entries(range(start, start + 100), b"x" * 1000))
        assert await store.get_many([key(n) for n in range(40)]) == [None] * 40
        assert await store.get_many([key(8999)]) == [b"x" * 1000]


async def test_evicted_entries_are_found_by_probe_no_more(path):
    probes = random_probes(2000)
    async with opened(path, max_bytes=2**20) as store:
        for start in range(0, 2000, 100):
            names = range(start, start + 100)
            await store.put_many(entries(names, b"x" * 1000, probes=probes[start:]))
        records = await store.get_many([key(n) for n in range(2000)])
        live = {key(n) for n, record in enumerate(records) if record is not None}
        assert 0 < len(live) < 1500
        for neighbour in await store.nearest(PARTITION, probes):
            assert neighbour.key in live


async def test_the_file_shrinks_after_most_of_it_expired(path):
    clock = [NOW]
    async with opened(path, now=lambda: clock[0]) as store:
        for start in range(0, 16_000, 2000):
            await store.put_many(entries(range(start, start + 2000), b"x" * 2000))
        clock[0] = LATER
        await store.sweep()
        assert store.stats().entries == 0
    assert path.stat().st_size < 12 * 2**20


async def test_a_sweep_removes_expired_entries_and_leaves_the_others(path):
    clock = [NOW]
    probes = random_probes(700)
    async with opened(path, now=lambda: clock[0]) as store:
        await store.put_many(entries(range(600), expires_at=NOW + 10, probes=probes))
        await store.put_many(entries(range(600, 700), expires_at=NOW + 20, probes=probes[600:]))
        clock[0] = NOW + 10
        await store.sweep()
        assert store.stats().entries == 100
        assert store.stats().expired == 600
        assert (await store.get_many([key(599), key(600)])) == [None, b"record"]
        found = await store.nearest(PARTITION, probes)
        assert {neighbour.key for neighbour in found} == {key(n) for n in range(600, 700)}


async def test_one_tenant_s_churn_evicts_nothing_of_another_below_its_half(path):
    async with opened(path, max_bytes=4 * 2**20) as store:
        await store.put_many(entries(range(500), b"q" * 1000, partition=QUIET))
        for start in range(1_000, 11_000, 250):
            names = range(start, start + 250)
            await store.put_many(entries(names, b"h" * 1000, partition=HOSTILE))

        found = await store.get_many([key(n) for n in range(500)])
        assert found == [b"q" * 1000] * 500
        assert store.stats().live_bytes <= 4 * 2**20
        assert store.stats().evicted > 5_000


async def test_a_tenant_that_holds_more_than_its_half_gives_way_to_another(path):
    async with opened(path, max_bytes=4 * 2**20) as store:
        for partition, first in ((HOSTILE, 0), (QUIET, 10_000)):
            for start in range(first, first + 3_500, 250):
                await store.put_many(
                    entries(range(start, start + 250), b"x" * 1000, partition=partition)
                )
        kept = [
            sum(found is not None for found in await store.get_many([key(n) for n in names]))
            for names in (range(3_500), range(10_000, 13_500))
        ]
        assert kept[0] + kept[1] == store.stats().entries
        assert 0.8 < kept[0] / kept[1] < 1.25


async def test_a_tenant_s_own_bounds_hold_while_there_is_room(path):
    bounds = {
        tenant_id("hostile"): StoreTerms(most_entries=300),
        tenant_id("quiet"): StoreTerms(most_bytes=2**20),
    }
    async with opened(path, terms=bounds.__getitem__) as store:
        for start in range(0, 2_000, 250):
            for partition, first in ((HOSTILE, 0), (QUIET, 10_000)):
                names = range(first + start, first + start + 250)
                await store.put_many(entries(names, b"x" * 1000, partition=partition))
        await store.sweep()

        found = await store.get_many([key(n) for n in range(2_000)])
        assert [n for n, record in enumerate(found) if record] == list(range(1_700, 2_000))
        found = await store.get_many([key(n) for n in range(10_000, 12_000)])
        assert 600 < sum(record is not None for record in found) < 1_000
