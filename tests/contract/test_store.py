"""What every `Store` promises; each implementation passes this one suite."""

import asyncio
import contextlib

import numpy as np
import pytest
from opened_stores import (
    DIMENSIONS,
    HOSTILE,
    OTHER_CONTEXT,
    OTHER_MODEL,
    OTHER_NAMESPACE,
    PARTITION,
    key,
    probes,
)

from cacheproxy.errors import StoreError


@pytest.mark.parametrize(
    "record",
    [b"", bytes(range(256)), b"\r\n$5\r\n", b"\0" * 10, b"\xff\xfe invalid UTF-8", b"x" * 300_000],
    ids=["empty", "all-bytes", "resp", "nuls", "not-utf8", "300-kB"],
)
async def test_a_record_comes_back_byte_for_byte(store, entry, record):
    await store.put_many([entry("a", record, probe=probes(1)[0])])
    assert await store.get_many([key("a")]) == [record]
    assert (await store.nearest(PARTITION, probes(1)))[0].record == record


async def test_records_come_in_the_order_of_the_keys_with_none_for_the_missing(store, entry):
    await store.put_many([entry(name, str(name).encode()) for name in range(5)])
    asked = [3, "absent", 0, 4, 0, "also absent", 1]
    assert await store.get_many([key(name) for name in asked]) == [
        b"3", None, b"0", b"4", b"0", None, b"1",
    ]  # fmt: skip


async def test_asking_for_nothing_gives_nothing(store):
    assert await store.get_many([]) == []
    assert await store.nearest(PARTITION, np.empty((0, DIMENSIONS), np.float32)) == []
    await store.put_many([])


async def test_writing_a_key_again_replaces_record_expiry_and_probe(
    store, clock, score_error, entry
):
    before, after = probes(2)
    await store.put_many([entry("a", b"old", ttl_s=1, probe=before)])
    await store.put_many([entry("a", b"new", ttl_s=60, probe=after)])
    await clock.let_pass(2)
    assert await store.get_many([key("a")]) == [b"new"]
    (found,) = await store.nearest(PARTITION, before[None])
    assert found.record == b"new"
    assert found.score == pytest.approx(float(before @ after), abs=score_error)


async def test_the_last_of_equal_keys_in_a_batch_stays(store, entry):
    await store.put_many([entry("a", b"first"), entry("b", b"other"), entry("a", b"last")])
    assert await store.get_many([key("a"), key("b")]) == [b"last", b"other"]


async def test_an_expired_entry_is_found_neither_by_key_nor_by_probe(store, clock, entry):
    soon, late = probes(2)
    await store.put_many(
        [entry("soon", b"soon", ttl_s=1, probe=soon), entry("late", b"late", probe=late)]
    )
    await clock.let_pass(1.1)
    assert await store.get_many([key("soon"), key("late")]) == [None, b"late"]
    (found,) = await store.nearest(PARTITION, soon[None])
    assert found.key == key("late")


async def test_a_partition_of_expired_entries_has_no_nearest(store, clock, entry):
    await store.put_many([entry(n, ttl_s=1, probe=row) for n, row in enumerate(probes(100))])
    await clock.let_pass(1.1)
    assert await store.nearest(PARTITION, probes(3)) == [None] * 3


async def test_nearest_sees_past_some_expired_neighbours_at_once(store, clock, entry):
    centre, away = probes(2)
    crowd = centre + 0.1 * probes(30, seed=1)
    crowd /= np.linalg.norm(crowd, axis=1, keepdims=True)
    await store.put_many([entry(n, ttl_s=1, probe=row) for n, row in enumerate(crowd)])
    await store.put_many([entry("alive", ttl_s=60, probe=away)])
    await clock.let_pass(1.1)
    assert (await store.nearest(PARTITION, centre[None]))[0].key == key("alive")


async def test_nearest_sees_past_any_number_of_expired_neighbours(store, clock, entry):
    centre, away = probes(2)
    crowd = centre + 1e-3 * probes(500, seed=1)
    crowd /= np.linalg.norm(crowd, axis=1, keepdims=True)
    await store.put_many([entry(n, ttl_s=1, probe=row) for n, row in enumerate(crowd)])
    await store.put_many([entry("alive", ttl_s=60, probe=away)])
    await clock.let_pass(1.1)
    # An index may need a few lookups to shed what has expired; it may not stay blind.
    answers = [(await store.nearest(PARTITION, centre[None]))[0] for _ in range(20)]
    assert answers[-1].key == key("alive")


async def test_of_equal_probes_one_that_lives_is_found(store, clock, entry):
    (probe,) = probes(1)
    await store.put_many([entry("long", ttl_s=60, probe=probe)])
    await store.put_many([entry("short", ttl_s=1, probe=probe)])
    await clock.let_pass(1.1)
    assert (await store.nearest(PARTITION, probe[None]))[0].key == key("long")


async def test_an_entry_without_a_probe_is_found_by_key_only(store, entry):
    await store.put_many([entry("plain", b"plain")])
    assert await store.get_many([key("plain")]) == [b"plain"]
    assert await store.nearest(PARTITION, probes(1)) == [None]


async def test_losing_its_probe_takes_an_entry_out_of_the_index(store, entry):
    await store.put_many([entry("a", probe=probes(1)[0])])
    await store.put_many([entry("a")])
    assert await store.nearest(PARTITION, probes(1)) == [None]


@pytest.mark.parametrize(
    "other",
    [OTHER_NAMESPACE, OTHER_MODEL, OTHER_CONTEXT],
    ids=["namespace", "model", "context"],
)
async def test_nearest_never_leaves_its_partition(store, entry, other):
    exact, unrelated = probes(2)
    await store.put_many([entry("theirs", b"theirs", partition=other, probe=exact)])
    assert await store.nearest(PARTITION, exact[None]) == [None]
    await store.put_many([entry("ours", b"ours", probe=unrelated)])
    assert (await store.nearest(PARTITION, exact[None]))[0].record == b"ours"
    assert (await store.nearest(other, unrelated[None]))[0].record == b"theirs"


async def test_a_key_written_in_another_partition_leaves_the_first(store, entry):
    (probe,) = probes(1)
    await store.put_many([entry("a", b"one", probe=probe)])
    await store.put_many([entry("a", b"two", partition=OTHER_NAMESPACE, probe=probe)])
    assert await store.nearest(PARTITION, probe[None]) == [None]
    assert (await store.nearest(OTHER_NAMESPACE, probe[None]))[0].record == b"two"


async def test_probes_of_another_length_find_nothing(store, entry):
    await store.put_many([entry("a", probe=probes(1)[0])])
    wider = np.eye(1, 2 * DIMENSIONS, dtype=np.float32)
    with contextlib.suppress(StoreError):
        assert await store.nearest(PARTITION, wider) == [None]
    assert (await store.nearest(PARTITION, probes(1)))[0].key == key("a")


async def test_nearest_is_the_brute_force_neighbour_with_its_cosine(store, score_error, entry):
    stored, asked = probes(600), probes(200, seed=1)
    await store.put_many([entry(n, str(n).encode(), probe=row) for n, row in enumerate(stored)])
    found = await store.nearest(PARTITION, asked)
    cosines = asked @ stored.T
    hits = 0
    for row, neighbour in enumerate(found):
        place = int(neighbour.record)
        assert neighbour.key == key(place)
        assert neighbour.score == pytest.approx(float(cosines[row, place]), abs=score_error)
        hits += place == int(cosines[row].argmax())
    assert hits >= 0.99 * len(asked)


async def test_scores_stay_within_a_cosine(store, entry):
    rows = probes(300)
    await store.put_many([entry(n, probe=row) for n, row in enumerate(rows)])
    assert all(-1.0 <= found.score <= 1.0 for found in await store.nearest(PARTITION, rows))


async def test_hostile_tags_harm_nothing(store, entry):
    tagged = [entry(n, str(n).encode(), tags=(tag,)) for n, tag in enumerate(HOSTILE)]
    await store.put_many([*tagged, entry("all", b"all", tags=(*HOSTILE, *HOSTILE))])
    keys = [key(n) for n in range(len(HOSTILE))]
    assert await store.get_many([*keys, key("all")]) == [
        *(str(n).encode() for n in range(len(HOSTILE))),
        b"all",
    ]


async def test_the_largest_request_is_written_and_read_whole(store, entry):
    await store.put_many([entry(n, b"%d" % n * 400) for n in range(2048)])
    found = await store.get_many([key(n) for n in reversed(range(2048))])
    assert found == [b"%d" % n * 400 for n in reversed(range(2048))]


async def test_an_entry_is_seen_by_every_lookup_after_its_write(store, entry):
    async def write_and_read(writer: int) -> None:
        rows = probes(20, seed=writer)
        for n, probe in enumerate(rows):
            name = f"{writer}/{n}"
            await store.put_many([entry(name, name.encode(), probe=probe)])
            assert await store.get_many([key(name)]) == [name.encode()]
            assert (await store.nearest(PARTITION, probe[None]))[0].record == name.encode()

    await asyncio.gather(*(write_and_read(writer) for writer in range(8)))


async def test_concurrent_readers_see_an_entry_replaced_atomically(store, score_error, entry):
    versions = probes(50)
    name, finished = "contested", asyncio.Event()

    async def write() -> None:
        for version, probe in enumerate(versions):
            await store.put_many([entry(name, str(version).encode(), probe=probe)])
        finished.set()

    async def read(query: np.ndarray) -> int:
        seen = -1
        while not finished.is_set():
            (record,) = await store.get_many([key(name)])
            if record is not None:
                assert int(record) >= seen, "an older version came back"
                seen = int(record)
            (found,) = await store.nearest(PARTITION, query[None])
            if found is not None:
                version = int(found.record)
                assert found.score == pytest.approx(
                    float(query @ versions[version]), abs=score_error
                )
        return seen

    await store.put_many([entry(name, b"0", probe=versions[0])])
    results = await asyncio.gather(write(), *(read(query) for query in probes(4, seed=9)))
    assert all(seen >= 0 for seen in results[1:])
    assert await store.get_many([key(name)]) == [b"49"]


async def test_calls_that_are_cancelled_leave_entries_whole_and_the_store_working(store, entry):
    rows = probes(64)
    for attempt in range(20):
        batch = [entry(n, b"%d" % n * 500, probe=row) for n, row in enumerate(rows)]
        calls = [
            asyncio.create_task(store.put_many(batch)),
            asyncio.create_task(store.get_many([key(n) for n in range(64)])),
            asyncio.create_task(store.nearest(PARTITION, rows)),
        ]
        for _ in range(attempt):
            await asyncio.sleep(0)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        records = await store.get_many([key(n) for n in range(64)])
        assert all(record in (None, b"%d" % n * 500) for n, record in enumerate(records))
    await store.put_many([entry("after", b"after", probe=rows[0])])
    assert await store.get_many([key("after")]) == [b"after"]


async def test_an_invalid_entry_is_distinguished_from_an_unhealthy_store(store, entry):
    for call in (
        store.get_many([b"short"]),
        store.put_many([entry("a")._replace(key=b"short")]),
        store.put_many([entry("a", probe=2 * probes(1)[0])]),
        store.nearest(PARTITION, probes(1)[0]),
    ):
        with pytest.raises(StoreError) as error:
            await call
        assert error.value.kind == "invalid"
    assert await store.get_many([key("a")]) == [None]


async def test_after_close_every_call_raises_store_error(store, entry):
    await store.put_many([entry("a")])
    await store.close()
    with pytest.raises(StoreError):
        await store.get_many([key("a")])
    with pytest.raises(StoreError):
        await store.nearest(PARTITION, probes(1))
    with pytest.raises(StoreError):
        await store.put_many([entry("a")])


async def test_close_lets_the_writes_in_progress_end(store, entry):
    writes = [
        asyncio.create_task(store.put_many([entry(f"{n}/{m}") for m in range(100)]))
        for n in range(5)
    ]
    await asyncio.sleep(0)
    await store.close()
    await asyncio.gather(*writes)


async def test_a_state_is_swapped_only_by_a_caller_that_knows_the_current_one(store, clock):
    later = clock.now() + 60
    assert await store.read_state("a name: * | { }") is None
    assert not await store.swap_state("a name: * | { }", b"other", b"new", later)
    assert await store.swap_state("a name: * | { }", None, b"\x00one", later)
    assert await store.read_state("a name: * | { }") == b"\x00one"
    assert not await store.swap_state("a name: * | { }", None, b"two", later)
    assert not await store.swap_state("a name: * | { }", b"other", b"two", later)
    assert await store.swap_state("a name: * | { }", b"\x00one", b"two", later)
    assert await store.read_state("a name: * | { }") == b"two"
    assert await store.read_state("another name") is None


async def test_a_state_is_gone_after_its_time(store, clock):
    await store.swap_state("short", None, b"state", clock.now() + 0.3)
    await clock.let_pass(0.5)

    assert await store.read_state("short") is None
    assert await store.swap_state("short", None, b"again", clock.now() + 60)
