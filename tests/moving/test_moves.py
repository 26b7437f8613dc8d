"""Entries and evidence between two stores: what arrives, what does not, and what it counts as."""

import time
from contextlib import asynccontextmanager

import numpy as np
import pytest
from opened_stores import key, probes

from cacheproxy.errors import ConfigError
from cacheproxy.moving.exporting import export
from cacheproxy.moving.file import MoveReader
from cacheproxy.moving.importing import import_file
from cacheproxy.records import EmbeddingRecord, pack
from cacheproxy.server.fingerprints import Place, Served
from cacheproxy.stores.embedded.store import EmbeddedStore
from cacheproxy.stores.encrypted import RecordCipher
from cacheproxy.stores.protocol import Entry, Partition, model_id
from cacheproxy.stores.purges import Scope
from cacheproxy.thresholds.sharing import evidence_name

NAMESPACE, OTHER = "0123456789abcdef" * 2, "fedcba9876543210" * 2
OURS, OTHER_PROBE, THEIRS = "model:probe", "model:other probe", "another model:probe"
KIND = "0.9"
SERVED = Served(
    {model_id(OURS): Place(OURS, True), model_id(OTHER_PROBE): Place(OURS, False)},
    [(OURS, KIND)],
)


def entry(name, *, namespace=NAMESPACE, fingerprint=OURS, context="", ttl_s=600.0, **more):
    expires_at = time.time() + ttl_s
    record = pack(EmbeddingRecord(namespace, key(name), 1.0, expires_at, 3, key(name) * 4))
    return Entry(key(name), Partition(namespace, fingerprint, context), record, expires_at, **more)


@asynccontextmanager
async def opened(path):
    store = EmbeddedStore(path, max_bytes=2**30)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture
async def old(tmp_path):
    async with opened(tmp_path / "old.sqlite") as store:
        yield store


@pytest.fixture
async def new(tmp_path):
    async with opened(tmp_path / "new.sqlite") as store:
        yield store


@pytest.fixture
def path(tmp_path):
    return tmp_path / "moved"


async def exported(store, path, *, namespaces=None, encrypt=None, report=lambda _: None):
    return await export(
        store,
        path,
        namespace_ids=namespaces,
        evidence=SERVED.evidence,
        encrypt=encrypt,
        report=report,
    )


async def imported(store, path, *, decrypt=None):
    with MoveReader(path) as reader:
        return await import_file(store, reader, SERVED, decrypt=decrypt, now=time.time)


async def test_entries_arrive_with_tags_lives_contexts_and_probes(old, new, path):
    (near,) = probes(1)
    written = [
        entry("a", tags=("t",), probe=near),
        entry("b", context="before", probe=near, tags=("t",)),
        entry("c", namespace=OTHER),
    ]
    await old.put_many(written)

    assert (await exported(old, path)).entries == 3
    assert (await imported(new, path)).entries == 3

    found = await new.get_many([one.key for one in written])
    assert found == [one.record for one in written]
    for one in written[:2]:
        (neighbour,) = await new.nearest(one.partition, near[None])
        assert neighbour.key == one.key
    moved = {one.key: one async for part in new.scan() for one in part}
    assert [moved[one.key].expires_at for one in written] == [one.expires_at for one in written]
    assert await new.purge(Scope(NAMESPACE, tag="t")) == 2
    assert path.stat().st_mode & 0o777 == 0o600


async def test_only_the_named_namespaces_travel(old, new, path):
    await old.put_many([entry("a"), entry("b", namespace=OTHER)])

    assert (await exported(old, path, namespaces=[OTHER])).namespaces == {OTHER}
    await imported(new, path)

    assert [one is None for one in await new.get_many([key("a"), key("b")])] == [True, False]


async def test_entries_of_another_model_are_refused_and_counted(old, new, path):
    await old.put_many([entry("a"), entry("b", fingerprint=THEIRS)])
    await exported(old, path)

    done = await imported(new, path)

    assert (done.entries, done.other_model, done.refused) == (1, 1, 1)
    assert await new.get_many([key("b")]) == [None]


async def test_entries_of_another_probe_are_found_by_key_and_not_by_probe(old, new, path):
    (near,) = probes(1)
    await old.put_many([entry("a", fingerprint=OTHER_PROBE, probe=near)])
    await exported(old, path)

    assert (await imported(new, path)).entries == 1
    assert await new.get_many([key("a")]) != [None]
    assert await new.nearest(Partition(NAMESPACE, OURS), near[None]) == [None]


async def test_what_the_store_has_stays_and_an_import_can_be_repeated(old, new, path):
    await old.put_many([entry("a"), entry("b")])
    await exported(old, path)
    newer = entry("a", ttl_s=1_200)
    await new.put_many([newer])

    first, second = await imported(new, path), await imported(new, path)

    assert (first.entries, first.present) == (1, 1)
    assert (second.entries, second.present) == (0, 2)
    assert await new.get_many([key("a")]) == [newer.record]


class PurgedMeanwhile:
    """A store of which a scope is purged when its entries have been scanned."""

    def __init__(self, store, scope):
        self._store, self._scope = store, scope

    def __getattr__(self, name):
        return getattr(self._store, name)

    async def scan(self, namespace_ids=None):
        async for part in self._store.scan(namespace_ids):
            yield part
        await self._store.purge(self._scope)


@pytest.mark.parametrize(
    ("scope", "left"),
    [
        (Scope(NAMESPACE), 1),
        (Scope(NAMESPACE, tag="even"), 3),
        (Scope(NAMESPACE, key=key(0)), 4),
        (Scope(NAMESPACE, tag="none"), 5),
    ],
    ids=["namespace", "tag", "key", "another tag"],
)
async def test_what_is_purged_during_an_export_does_not_arrive(old, new, path, scope, left):
    await old.put_many([entry(i, tags=("even",) if i % 2 == 0 else ()) for i in range(4)])
    await old.put_many([entry("theirs", namespace=OTHER, tags=("even",))])

    assert (await exported(PurgedMeanwhile(old, scope), path)).entries == 5
    done = await imported(new, path)

    assert (done.entries, done.purged) == (left, 5 - left)


async def test_what_was_purged_here_since_the_export_does_not_come_back(old, new, path):
    await old.put_many([entry("a", tags=("t",)), entry("b")])
    await new.purge(Scope(NAMESPACE))  # before the export: what that had is not meant
    await exported(old, path)
    await new.purge(Scope(NAMESPACE, tag="t"))

    done = await imported(new, path)

    assert (done.entries, done.purged) == (1, 1)
    assert await new.get_many([key("a")]) == [None]


async def test_expired_entries_are_left_out(old, new, path):
    await old.put_many([entry("a", ttl_s=60)])
    await exported(old, path)

    with MoveReader(path) as reader:
        done = await import_file(new, reader, SERVED, decrypt=None, now=lambda: time.time() + 61)

    assert (done.entries, done.expired) == (0, 1)


async def test_evidence_arrives_where_there_is_none(old, new, path):
    ours, theirs = (evidence_name(OURS, KIND, one) for one in (NAMESPACE, OTHER))
    await old.put_many([entry("a"), entry("b", namespace=OTHER)])
    for name in (ours, theirs):
        await old.swap_state(name, None, b"learned", time.time() + 600)
    await new.swap_state(theirs, None, b"own", time.time() + 600)

    assert (await exported(old, path)).evidence == 2
    done = await imported(new, path)

    assert (done.evidence, done.evidence_present) == (1, 1)
    assert await new.read_state(ours) == b"learned"
    assert await new.read_state(theirs) == b"own"


async def test_an_encrypted_file_has_no_record_in_clear_and_needs_its_key(old, new, path):
    one = entry("a")
    await old.put_many([one])
    ours, other = RecordCipher([b"a" * 32]), RecordCipher([b"b" * 32])
    await exported(old, path, encrypt=ours.encrypt)

    assert one.record not in path.read_bytes()
    with pytest.raises(ConfigError, match="the file is encrypted"):
        await imported(new, path)
    assert (await imported(new, path, decrypt=other.decrypt)).undecryptable == 1
    assert (await imported(new, path, decrypt=ours.decrypt)).entries == 1
    assert await new.get_many([one.key]) == [one.record]


async def test_a_damaged_file_changes_nothing(old, new, path):
    await old.put_many([entry(i) for i in range(1_000)])
    await exported(old, path)
    data = bytearray(path.read_bytes())
    data[-200] ^= 1
    path.write_bytes(data)

    with pytest.raises(ConfigError, match=r"record 100[01] is damaged"):
        await imported(new, path)
    assert (await new.census()).entries == 0


async def test_probes_travel_bit_by_bit(old, new, path):
    written = [entry(i, probe=probe) for i, probe in enumerate(probes(20))]
    await old.put_many(written)
    await exported(old, path)
    await imported(new, path)

    moved = {one.key: one.probe async for part in new.scan() for one in part}
    assert all(np.array_equal(moved[one.key], one.probe) for one in written)
