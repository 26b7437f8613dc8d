"""A thread's connection outlives no error, and the event loop makes room for its thread."""

import asyncio
import sqlite3

import pytest

from cacheproxy.errors import StoreError
from cacheproxy.stores.embedded.database import Database, transaction
from cacheproxy.stores.embedded.database_thread import DatabaseThread


@pytest.fixture
async def thread(tmp_path):
    thread = DatabaseThread(Database(tmp_path / "cache.sqlite"), "test")
    yield thread
    await thread.close()


def count(connection) -> int:
    return connection.execute("SELECT count(*) FROM entries").fetchone()[0]


async def test_whatever_a_job_raises_is_a_store_error_with_its_cause(thread):
    for job in (lambda _: 1 / 0, lambda c: c.execute("nonsense"), lambda _: [].pop()):
        with pytest.raises(StoreError) as raised:
            await thread.run(job)
        assert raised.value.__cause__ is not None


async def test_a_connection_that_broke_is_replaced_for_the_next_job(thread):
    await thread.run(lambda connection: connection.close())
    with pytest.raises(StoreError):
        await thread.run(count)
    assert await thread.run(count) == 0


async def test_a_transaction_that_fails_leaves_nothing_and_the_connection_usable(thread):
    def fail(connection) -> None:
        with transaction(connection):
            connection.execute("INSERT INTO tags VALUES (x'01', x'02')")
            raise LookupError

    with pytest.raises(StoreError):
        await thread.run(fail)
    left = await thread.run(
        lambda c: (c.in_transaction, c.execute("SELECT * FROM tags").fetchall())
    )
    assert left == (False, [])


async def test_a_job_whose_caller_was_cancelled_before_its_turn_does_not_run(thread):
    ran = []
    held = asyncio.Event()
    loop = asyncio.get_running_loop()
    release = asyncio.run_coroutine_threadsafe
    first = asyncio.create_task(thread.run(lambda _: release(held.wait(), loop).result()))
    second = asyncio.create_task(thread.run(lambda _: ran.append("second")))
    await asyncio.sleep(0)
    second.cancel()
    held.set()
    await first
    await thread.run(lambda _: ran.append("third"))
    assert ran == ["third"]


async def test_jobs_run_on_one_thread_in_the_order_asked(thread):
    order = []
    await asyncio.gather(*(thread.run(lambda _, n=n: order.append(n)) for n in range(50)))
    assert order == list(range(50))


async def test_two_processes_that_find_one_corrupt_file_set_aside_only_that(tmp_path):
    path = tmp_path / "cache.sqlite"
    path.write_bytes(b"not a database" * 1000)
    threads = [DatabaseThread(Database(path), "test") for _ in range(4)]
    assert await asyncio.gather(*(thread.run(count) for thread in threads)) == [0] * 4
    aside = [file for file in tmp_path.iterdir() if "set-aside" in file.name]
    assert [file.read_bytes() for file in aside] == [b"not a database" * 1000]
    for thread in threads:
        await thread.close()
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()
