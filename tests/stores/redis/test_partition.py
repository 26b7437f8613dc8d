"""A master that is cut off from its replica and Sentinel, and processes on both sides."""

import asyncio

import pytest
from opened_stores import key
from redis import Redis
from redis_entries import PARTITION, entries, failure_of, names_of, opened, until

from cacheproxy.stores.purges import Scope


def scope(name: str) -> Scope:
    return Scope(PARTITION.namespace_id, key=key(name))


async def write(store, *names: str) -> int:
    """Write entries whose work begins now."""
    generation = store.purges.generation
    return await store.put_many([one._replace(generation=generation) for one in entries(names)])


async def test_a_master_that_is_cut_off_acknowledges_no_purge_and_what_it_took_is_lost(
    network, wired_pair
):
    if network is None:
        pytest.skip("no network namespaces can be made here")
    old = wired_pair.master
    async with opened(wired_pair.url) as ours, opened(f"unix://{old.socket}") as theirs:
        await write(ours, "a", "b")
        assert await ours.purge(scope("none")) == 0  # the replica confirms it
        old.cut_off()

        assert await failure_of(theirs.purge(scope("a"))) == "unavailable"
        assert await theirs.get_many([key("a")]) == [None]
        assert await write(theirs, "lost") == 1

        async def is_written():
            return await write(ours, "new") == 1

        await until(is_written)
        assert wired_pair.master is not old
        assert await ours.purge(scope("b")) == 1
        found = await ours.get_many([key(name) for name in ("a", "b", "lost", "new")])
        assert names_of(found) == ["a", None, None, "new"]
        assert names_of(await theirs.get_many([key("b")])) == ["b"]  # nobody can tell it

        with Redis(unix_socket_path=old.socket) as at_old:
            at_old.config_set("min-replicas-max-lag", 1)
            at_old.config_set("min-replicas-to-write", 1)

            async def is_refused():
                try:
                    await write(theirs, "more")
                except Exception as error:
                    return error.kind == "unavailable"

            await until(is_refused)
            assert await failure_of(theirs.purge(scope("lost"))) == "unavailable"

            old.mend_wire()

            async def has_joined():
                told = await asyncio.to_thread(at_old.info, "replication")
                return told.get("master_link_status") == "up"

            await until(has_joined, 60)

        async def is_heard():
            return theirs.purges.is_listening and await theirs.get_many([key("new")]) != [None]

        await until(is_heard)
        found = await theirs.get_many([key(name) for name in ("b", "lost")])
        assert found == [None, None]
        assert await ours.purge(scope("a")) == 1  # confirmed by the one that was cut off
        assert await theirs.get_many([key("a")]) == [None]
