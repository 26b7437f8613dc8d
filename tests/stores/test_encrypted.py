"""Records at rest: unreadable without a key, a miss with another one, read by old keys too."""

import base64
import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opened_stores import PARTITION, key, probes

from cacheproxy.errors import ConfigError
from cacheproxy.settings.sources import load_settings
from cacheproxy.stores.encrypted import RecordCipher
from cacheproxy.stores.factory import make_store
from cacheproxy.stores.protocol import Entry

OLD, NEW = b"o" * 32, b"n" * 32
SECRET = b"the patient's question" * 3


def settings_with(tmp_path, *keys: bytes):
    text = ",".join(base64.b64encode(one).decode() for one in keys)
    encryption = {"encryption": {"keys": text}} if keys else {}
    return load_settings({"home": tmp_path, **encryption}, None)


async def kept(tmp_path, *keys: bytes, write: bool = False):
    """Return what a server with these keys finds: by key, and by probe; and what it could not."""
    store = make_store(settings_with(tmp_path, *keys))
    await store.open()
    try:
        if write:
            entry = Entry(key("a"), PARTITION, SECRET, 4e9, probe=probes(1)[0])
            assert await store.put_many([entry]) == 1
        (by_key,) = await store.get_many([key("a")])
        (by_probe,) = await store.nearest(PARTITION, probes(1))
        near = await store.candidates(PARTITION, probes(1)[0], 3)
        found = by_probe.record if by_probe else None
        assert [one.record for one in near] == ([found] if found else [])
        return by_key, found, store.stats().undecryptable
    finally:
        await store.close()


async def test_a_record_is_read_by_its_key_and_by_no_other(tmp_path):
    assert await kept(tmp_path, OLD, write=True) == (SECRET, SECRET, 0)
    assert await kept(tmp_path, NEW) == (None, None, 3)
    assert await kept(tmp_path, OLD) == (SECRET, SECRET, 0)


async def test_after_a_rotation_old_records_are_read_and_new_ones_need_the_new_key(tmp_path):
    await kept(tmp_path, OLD, write=True)
    assert await kept(tmp_path, NEW, OLD) == (SECRET, SECRET, 0)
    await kept(tmp_path, NEW, OLD, write=True)
    assert await kept(tmp_path, NEW) == (SECRET, SECRET, 0)
    assert await kept(tmp_path, OLD) == (None, None, 3)


async def test_a_record_that_is_not_encrypted_is_a_miss_where_there_is_a_key(tmp_path):
    await kept(tmp_path, write=True)

    assert await kept(tmp_path, OLD) == (None, None, 3)


async def test_no_byte_of_a_record_is_in_the_file(tmp_path):
    await kept(tmp_path, OLD, write=True)
    with sqlite3.connect(tmp_path / "cache.sqlite") as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    data = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.is_file())
    plain = tmp_path / "plain"
    await kept(plain, write=True)

    assert SECRET[:8] not in data
    assert SECRET in b"".join(path.read_bytes() for path in plain.iterdir() if path.is_file())


@given(st.binary(max_size=200), st.integers(0, 2**20), st.integers(1, 255))
def test_a_record_that_was_changed_or_moved_does_not_decrypt(record, place, change):
    cipher = RecordCipher([OLD, NEW])
    stored = cipher.encrypt(key("a"), record)
    damaged = bytearray(stored)
    damaged[place % len(stored)] ^= change

    assert cipher.decrypt(key("a"), stored) == record
    assert cipher.decrypt(key("a"), bytes(damaged)) is None
    assert cipher.decrypt(key("b"), stored) is None
    assert cipher.decrypt(key("a"), stored[: place % len(stored)]) is None
    assert cipher.encrypt(key("a"), record) != stored


@pytest.mark.parametrize(
    "keys", ["no base64!", "c2hvcnQ=", "", base64.b64encode(OLD).decode() + ",", 2 * "b2s,"]
)
def test_a_mistaken_key_is_told_without_the_key(tmp_path, keys):
    with pytest.raises(ConfigError) as told:
        load_settings({"home": tmp_path, "encryption": {"keys": keys}}, None)
    assert "encryption.keys" in str(told.value)
    assert keys == "" or keys not in str(told.value)
