"""A scan finds every live entry as it is kept, and another store takes it from there."""

import numpy as np
import pytest
from opened_stores import (
    HOSTILE,
    OTHER_CONTEXT,
    OTHER_MODEL,
    OTHER_NAMESPACE,
    PARTITION,
    key,
    probes,
)

from cacheproxy.keys import Hashed, hex_id
from cacheproxy.stores.purges import PurgeNote, Scope

OURS = PARTITION.namespace_id
MANY = 700
"""More entries than a part of any store's scan."""


async def scanned(store, namespace_ids=None):
    """Return the entries of a scan by key; one that comes twice has to be the same."""
    found = {}
    async for part in store.scan(namespace_ids):
        for entry in part:
            assert found.setdefault(entry.key, entry).record == entry.record
    return found


async def test_every_live_entry_is_found_once_asked_for(store, entry):
    await store.put_many([entry(i, f"record {i}".encode()) for i in range(MANY)])
    await store.put_many([entry("theirs", partition=OTHER_NAMESPACE)])

    ours = await scanned(store, [OURS])
    everything = await scanned(store)

    assert {one.record for one in ours.values()} == {f"record {i}".encode() for i in range(MANY)}
    assert {one.partition.namespace_id for one in ours.values()} == {OURS}
    assert len(everything) == MANY + 1
    namespaces = {one.partition.namespace_id for one in everything.values()}
    assert namespaces == {hex_id(OURS), hex_id(OTHER_NAMESPACE.namespace_id)}
    assert await scanned(store, ["0" * 32]) == {}


async def test_an_entry_comes_with_all_that_it_was_written_with(store, entry, clock, score_error):
    (probe,) = probes(1)
    tags = ("a", "b,c", "ü")
    await store.put_many(
        [entry("a", b"r", partition=OTHER_CONTEXT, tags=tags, probe=probe, generation=7)]
    )

    found = (await scanned(store, [OURS]))[key("a")]
    alone = await store.entry(key("a"))

    assert alone.partition.namespace_id == hex_id(OURS)
    for name in ("record", "expires_at", "tags", "generation"):
        assert getattr(alone, name) == getattr(found, name)
    assert alone.partition.model_id == found.partition.model_id
    assert found.record == b"r"
    assert set(found.tags) == {hex_id(tag) for tag in tags}
    assert all(isinstance(tag, Hashed) for tag in found.tags)
    assert found.partition.model_id == OTHER_CONTEXT.model_id
    assert hex_id(found.partition.context) == hex_id(OTHER_CONTEXT.context)
    assert found.generation == 7
    assert found.expires_at == pytest.approx(clock.now() + 60, abs=10)
    np.testing.assert_allclose(found.probe, probe, atol=score_error)


async def test_neither_expired_nor_purged_entries_are_found(store, entry, clock):
    await store.put_many([entry("soon", ttl_s=1), entry("late"), entry("tagged", tags=("t",))])
    await clock.let_pass(1.1)
    await store.purge(Scope(OURS, tag="t"))

    assert set(await scanned(store)) == {key("late")}
    alone = [await store.entry(key(name)) for name in ("soon", "late", "tagged", "never")]
    assert [one is not None for one in alone] == [False, True, False, False]


@pytest.mark.parametrize("tag", ["t", *HOSTILE[:8]])
async def test_what_was_scanned_can_be_written_found_and_purged_by_its_tag(store, entry, tag):
    near, far, away = probes(3)
    written = [
        entry("a", b"a", probe=near, tags=(tag, "more"), generation=3),
        entry("b", b"b", partition=OTHER_CONTEXT, probe=far, tags=(tag,)),
        entry("c", b"c", partition=OTHER_MODEL, probe=away),
    ]
    await store.put_many(written)
    kept = [*(await scanned(store, [OURS])).values()]
    await store.purge(Scope(OURS))
    later = [one._replace(generation=store.purges.generation) for one in kept]
    assert await store.put_many(later) == 3

    keys = [key("a"), key("b"), key("c")]
    assert await store.get_many(keys) == [b"a", b"b", b"c"]
    for one in written:
        (found,) = await store.nearest(one.partition, one.probe[None])
        assert found.key == one.key
        assert found.score == pytest.approx(1, abs=1e-3)
    assert await store.purge(Scope(OURS, tag=tag)) == 2
    assert await store.get_many(keys) == [None, None, b"c"]


async def test_the_purges_since_a_moment_are_known_by_their_scopes(store, entry):
    await store.put_many([entry("a", tags=("t",)), entry("b")])
    await store.purge(Scope(OURS, tag="before"))
    before = store.purges.generation
    await store.purge(Scope(OURS, tag="t"))
    await store.purge(Scope(OURS, key=key("b")))
    await store.purge(Scope(OTHER_NAMESPACE.namespace_id))

    noted = await store.purged_since(before)

    assert all(note.generation > before for note in noted)
    ours, theirs = hex_id(OURS), hex_id(OTHER_NAMESPACE.namespace_id)
    assert {(note.namespace, note.tag, note.key) for note in noted} == {
        (ours, hex_id("t"), None),
        (ours, None, key("b")),
        (theirs, None, None),
    }
    assert isinstance(noted[0], PurgeNote)
    assert await store.purged_since(store.purges.generation) == []
