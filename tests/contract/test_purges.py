"""What every `Store` promises of purges: nothing that was made before comes back, and no more goes.

Entries that a test makes carry the generation 0, as if their work had begun before anything.
"""

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opened_stores import (
    HOSTILE,
    OTHER_MODEL,
    OTHER_NAMESPACE,
    PARTITION,
    SHARED,
    key,
    probes,
)

from cacheproxy.errors import StoreError
from cacheproxy.stores.protocol import Partition
from cacheproxy.stores.purges import Scope

NAMESPACE = PARTITION.namespace_id
SCOPES = {
    "key": Scope(NAMESPACE, key=key("a")),
    "tag": Scope(NAMESPACE, tag="docs"),
    "namespace": Scope(NAMESPACE),
}


@pytest.fixture(params=SCOPES)
def scope(request):
    return SCOPES[request.param]


async def until(condition):
    """Wait until the condition holds."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.002)


async def found(store, *names):
    """Return which of the names are found by key."""
    records = await store.get_many([key(name) for name in names])
    return {name for name, record in zip(names, records, strict=True) if record is not None}


async def test_a_purge_by_key_removes_that_entry_only(store, entry):
    rows = probes(2)
    await store.put_many([entry("a", probe=rows[0]), entry("b", probe=rows[1])])
    assert await store.purge(SCOPES["key"]) == 1
    assert await found(store, "a", "b") == {"b"}
    assert (await store.nearest(PARTITION, rows[:1]))[0].key == key("b")
    assert await store.purge(SCOPES["key"]) == 0


async def test_a_purge_by_tag_removes_only_that_namespaces_entries_with_the_tag(store, entry):
    rows = probes(6)
    await store.put_many(
        [
            entry("one", tags=("docs",), probe=rows[0]),
            entry("many", tags=("a", "docs", "z")),
            entry("other model", tags=("docs",), partition=OTHER_MODEL, probe=rows[1]),
            entry("similar", tags=("docs2", "doc", "Docs"), probe=rows[2]),
            entry("none", probe=rows[3]),
            entry("theirs", tags=("docs",), partition=OTHER_NAMESPACE, probe=rows[4]),
        ]
    )
    assert await store.purge(SCOPES["tag"]) == 3
    names = ("one", "many", "other model", "similar", "none", "theirs")
    assert await found(store, *names) == {"similar", "none", "theirs"}
    assert (await store.nearest(PARTITION, rows[:1]))[0].key in (key("similar"), key("none"))
    assert (await store.nearest(OTHER_NAMESPACE, rows[4:5]))[0].key == key("theirs")
    assert await store.nearest(OTHER_MODEL, rows[1:2]) == [None]


async def test_a_purge_of_a_namespace_removes_all_of_it_and_nothing_else(store, entry):
    rows = probes(700)
    await store.put_many([entry(n, probe=row) for n, row in enumerate(rows[:600])])
    await store.put_many([entry("plain"), entry("other model", partition=OTHER_MODEL)])
    await store.put_many(
        [entry(n, partition=OTHER_NAMESPACE, probe=rows[n]) for n in range(600, 700)]
    )
    told = []
    assert await store.purge(SCOPES["namespace"], told.append) == 602
    assert told == sorted(told)
    assert told[-1] == 602
    assert await found(store, *range(700), "plain", "other model") == set(range(600, 700))
    assert await store.nearest(PARTITION, rows[:50]) == [None] * 50
    neighbours = await store.nearest(OTHER_NAMESPACE, rows[600:])
    assert [neighbour.key for neighbour in neighbours] == [key(n) for n in range(600, 700)]
    assert (await store.census()).entries == 100


async def test_a_key_of_another_namespace_is_not_purged(store, entry):
    await store.put_many([entry("a", partition=OTHER_NAMESPACE)])
    assert await store.purge(SCOPES["key"]) == 0
    assert await found(store, "a") == {"a"}
    assert await store.put_many([entry("a", partition=OTHER_NAMESPACE)]) == 1


async def test_what_was_begun_before_a_purge_is_not_written_after_it(store, entry, scope):
    before = store.purges.generation
    await store.purge(scope)
    late = entry("a", tags=("docs",), probe=probes(1)[0], generation=before)
    other = entry("b", partition=OTHER_NAMESPACE, tags=("docs",), generation=before)
    assert await store.put_many([late, other]) == 1
    assert await found(store, "a", "b") == {"b"}
    assert await store.nearest(PARTITION, probes(1)) == [None]


async def test_what_was_begun_after_a_purge_is_written(store, entry, scope):
    await store.purge(scope)
    after = store.purges.generation
    assert await store.put_many([entry("a", tags=("docs",), generation=after)]) == 1
    assert await found(store, "a") == {"a"}


async def test_a_purge_spares_what_is_outside_its_scope_and_still_to_be_written(store, entry):
    before = store.purges.generation
    await store.purge(SCOPES["key"])
    await store.purge(SCOPES["tag"])
    assert await store.put_many([entry("b", tags=("other",), generation=before)]) == 1
    assert await found(store, "b") == {"b"}


async def test_concurrent_writes_leave_no_entry_begun_before_the_purge(store, entry):
    rows = probes(64)
    ended = False

    async def write(writer: int) -> None:
        while not ended:
            batch = [
                entry(f"{writer}/{n}", tags=("docs",), probe=row)
                for n, row in enumerate(rows[writer * 8 : writer * 8 + 8])
            ]
            await store.put_many(batch)

    writers = [asyncio.create_task(write(writer)) for writer in range(8)]
    for _ in range(10):
        await asyncio.sleep(0.01)
    await store.purge(SCOPES["tag"])
    names = [f"{writer}/{n}" for writer in range(8) for n in range(8)]
    assert await found(store, *names) == set()
    for _ in range(10):
        await asyncio.sleep(0.01)
    ended = True
    await asyncio.gather(*writers)
    assert await found(store, *names) == set()


async def test_generations_rise_whatever_is_purged(store, scope):
    seen = [store.purges.generation]
    for _ in range(3):
        await store.purge(scope)
        seen.append(store.purges.generation)
    assert seen == sorted(set(seen))


async def test_a_caller_that_leaves_does_not_stop_a_purge(store, entry):
    await store.put_many([entry(n) for n in range(600)])
    before = store.purges.generation
    caller = asyncio.create_task(store.purge(SCOPES["namespace"]))
    await until(lambda: store.purges.generation > before)
    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)

    async with asyncio.timeout(20):
        while (await store.census()).entries:
            await asyncio.sleep(0.01)


async def test_after_close_nothing_is_purged(store):
    await store.close()
    with pytest.raises(StoreError):
        await store.purge(SCOPES["namespace"])
    with pytest.raises(StoreError):
        await store.census()


# Other processes

of_shared_stores = pytest.mark.parametrize("opened", SHARED, indirect=True)


@of_shared_stores
async def test_another_process_receives_a_purge_and_reads_no_purged_entry(
    store, others, entry, scope
):
    other = await others()
    await store.put_many([entry("a", tags=("docs",))])
    since = other.purges.moment
    assert other.purges.is_untouched(NAMESPACE, key("a"), since)
    await store.purge(scope)
    assert await found(other, "a") == set()
    await until(lambda: not other.purges.is_untouched(NAMESPACE, key("a"), since))
    assert other.purges.generation == store.purges.generation
    assert other.purges.is_untouched(OTHER_NAMESPACE.namespace_id, key("b"), since)


@of_shared_stores
async def test_another_process_hears_of_replaced_entries_and_not_of_first_ones(
    store, others, entry
):
    other = await others()
    await store.put_many([entry("first")])
    since, own = other.purges.moment, store.purges.moment
    await store.put_many([entry("a"), entry("b")])
    await store.put_many([entry("a", b"new"), entry("c")])
    await until(lambda: not other.purges.is_untouched(NAMESPACE, key("a"), since))
    for name in ("first", "b", "c"):
        assert other.purges.is_untouched(NAMESPACE, key(name), since)
    assert store.purges.moment == own


@of_shared_stores
async def test_what_another_process_began_before_a_purge_is_not_written_after_it(
    store, others, entry, scope
):
    other = await others()
    before = other.purges.generation
    await store.purge(scope)
    assert await other.put_many([entry("a", tags=("docs",), generation=before)]) == 0
    await until(lambda: other.purges.generation == store.purges.generation)
    after = other.purges.generation
    assert await other.put_many([entry("a", tags=("docs",), generation=after)]) == 1


@of_shared_stores
async def test_a_process_that_starts_later_knows_of_earlier_purges(store, others, entry):
    await store.purge(SCOPES["namespace"])
    other = await others()
    assert other.purges.generation == store.purges.generation
    assert await other.put_many([entry("a", generation=other.purges.generation)]) == 1


@of_shared_stores
async def test_a_purge_that_is_cut_short_stays_in_force(store, others, entry):
    other = await others()
    rows = probes(1200)
    await other.put_many([entry(n, tags=("docs",), probe=row) for n, row in enumerate(rows)])
    await other.put_many([entry("kept", probe=probes(1, seed=5)[0])])
    closing = []

    def close(_: int) -> None:
        if not closing:
            closing.append(asyncio.create_task(store.close()))

    with pytest.raises(StoreError):
        await store.purge(SCOPES["tag"], close)
    await closing[0]
    await until(lambda: other.purges.generation == store.purges.generation)
    for reader in (other, await others()):
        assert (await reader.census()).entries > 1
        assert await found(reader, *range(1200), "kept") == {"kept"}
        for neighbour in await reader.nearest(PARTITION, rows[:50]):
            assert neighbour is None or neighbour.key == key("kept")
    assert await other.purge(SCOPES["tag"]) > 0
    assert (await other.census()).entries == 1
    assert await found(other, "kept") == {"kept"}


# Any names

names = st.one_of(st.sampled_from(HOSTILE), st.text(st.characters(codec="utf-8"), max_size=30))


@given(ours=names, theirs=names, tag=names, other_tag=names)
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
async def test_purges_stay_within_their_scope_whatever_the_names(
    store, entry, ours, theirs, tag, other_tag
):
    mine, foreign = Partition(ours, "model"), Partition(theirs, "model")
    rows = probes(3)
    generation = store.purges.generation
    await store.put_many(
        [
            entry((ours, "t"), b"t", partition=mine, tags=(tag,), probe=rows[0],
                  generation=generation),
            entry((ours, "o"), b"o", partition=mine, tags=(other_tag,), probe=rows[1],
                  generation=generation),
            entry((theirs, "t", 2), b"f", partition=foreign, tags=(tag,), probe=rows[2],
                  generation=generation),
        ]
    )  # fmt: skip
    asked = ((ours, "t"), (ours, "o"), (theirs, "t", 2))
    stays = set(asked[1:]) if tag != other_tag else set(asked[2:])
    if ours == theirs:
        stays.discard(asked[2])
    await store.purge(Scope(ours, tag=tag))
    assert await found(store, *asked) == stays
    await store.purge(Scope(ours))
    stays = {asked[2]} if ours != theirs else set()
    assert await found(store, *asked) == stays
    assert await store.nearest(mine, rows[:1]) == [None]
    (neighbour,) = await store.nearest(foreign, rows[2:])
    assert (neighbour is not None) == (ours != theirs)
    await store.purge(Scope(theirs))
