"""Entries of the embedded store: what is refused, and what leaves with an entry."""

import sqlite3

import numpy as np
import pytest
from embedded_entries import LATER, NOW, PARTITION, entries, key, opened
from unit_probes import random_probes

from cacheproxy.errors import StoreError
from cacheproxy.stores.embedded import rows
from cacheproxy.stores.protocol import Entry


@pytest.mark.parametrize(
    "probe",
    [
        np.zeros(8, np.float32),
        np.full(8, np.nan, np.float32),
        np.full(8, np.inf, np.float32),
        np.ones(8, np.float32),
        np.eye(2, dtype=np.float32),
        np.empty(0, np.float32),
    ],
    ids=["zero", "nan", "infinite", "too-long", "matrix", "empty"],
)
async def test_a_probe_that_is_no_unit_vector_is_refused_and_nothing_written(probe):
    async with opened(None) as store:
        with pytest.raises(StoreError):
            await store.put_many(entries(["good", "bad"], probes=[random_probes(1, 8)[0], probe]))
        assert await store.get_many([key("good"), key("bad")]) == [None, None]


async def test_keys_of_another_length_and_expiries_that_are_no_time_are_refused():
    async with opened(None) as store:
        with pytest.raises(StoreError):
            await store.get_many([key("a"), b"short"])
        for entry in (
            Entry(b"short", PARTITION, b"record", LATER),
            Entry(key("a"), PARTITION, b"record", float("nan")),
        ):
            with pytest.raises(StoreError):
                await store.put_many([*entries(["good"]), entry])
        assert await store.get_many([key("good")]) == [None]


async def test_a_lone_surrogate_in_a_tag_harms_nothing():
    async with opened(None) as store:
        await store.put_many([Entry(key("a"), PARTITION, b"record", LATER, ("\ud800", "\udfff"))])
        assert await store.get_many([key("a")]) == [b"record"]


async def test_tags_leave_with_their_entry(path):
    async with opened(path) as store:
        await store.put_many([Entry(key("a"), PARTITION, b"old", LATER, ("one", "two", "one"))])
        await store.put_many([Entry(key("a"), PARTITION, b"new", LATER, ("two", "three"))])
        await store.put_many([Entry(key("b"), PARTITION, b"old", NOW, ("gone",))])
        await store.sweep()
    connection = sqlite3.connect(path)
    assert set(connection.execute("SELECT tag, key FROM tags")) == {
        (rows.tag_bytes(PARTITION.namespace_id, tag), key("a")) for tag in ("two", "three")
    }
    connection.close()
