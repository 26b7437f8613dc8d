"""Breaks a Redis under steady load: every answer is 200 and right, the store costs its deadline for
a moment and then nothing, the tiers recover by themselves, and the counters tell what happened.
"""

import asyncio
import os
import signal
import time

import httpx
import pytest
import pytest_asyncio
from redis.exceptions import ResponseError
from relay import Relay
from server_process import Server
from steady_load import MODEL, TEXTS, SteadyLoad, ask_without_cache, median_store_ms

STALL_S = float(os.environ.get("CACHEPROXY_TEST_STALL_S", "3"))

DEADLINE_MS = 25
BUSY_MS = 1_000
"""What a busy machine may add to one request, whatever the store does."""

pytestmark = pytest.mark.asyncio(loop_scope="module")


class Rig:
    """A server, its Redis, and a relay between them; the hot tier is off."""

    def __init__(self, redis, relay, server, truth):
        self.redis, self.relay, self.server, self.truth = redis, relay, server, truth

    def load(self) -> SteadyLoad:
        return SteadyLoad(self.server.url, self.truth)

    def metric(self, name: str, **labels: str) -> float:
        return self.server.metric(name, **labels)

    def breaker(self, op: str) -> float:
        return self.metric("store_breaker_state", op=op)

    def indexed(self) -> int:
        """Return how many entries the search index holds; 0 where there is none."""
        with self.redis.client() as client:
            try:
                (name,) = client.execute_command("FT._LIST")
                return int(client.ft(name.decode()).info()["num_docs"])
            except (ValueError, ResponseError):
                return 0

    def repair(self) -> None:
        """Undo whatever was broken."""
        relay = self.relay
        relay.delay_s, relay.piece_bytes, relay.garbage, relay.cut_at = 0.0, 65_536, None, None
        if not self.redis.is_running:
            self.redis.start()
        self.redis.resume()
        with self.redis.client() as client:
            client.config_set("maxmemory", 0)
            client.replicaof("no", "one")

    def keys_without_ttl(self) -> list[bytes]:
        with self.redis.client() as client:
            return [name for name in client.scan_iter(count=1_000) if client.pttl(name) == -1]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rig(breakable_redis, model_home):
    async with Relay(breakable_redis.port) as relay:
        flags = ("--drain-s", "0", "--cache-hot-bytes", "0", "--semantic-threshold", "1")
        store = f"redis://127.0.0.1:{relay.port}"
        server = await asyncio.to_thread(Server, model_home, store, *flags)
        yield Rig(breakable_redis, relay, server, await ask_without_cache(server.url))
        assert await asyncio.to_thread(server.stop) == 0, server.log


@pytest_asyncio.fixture(loop_scope="module")
async def load(rig):
    """A load under which all is well at first, and has to be well in the end."""
    async with rig.load() as load:
        await load.until_hits()
        yield load
        rig.repair()
        await load.until_hits()
        ops = ("get", "nearest", "put")
        await load.until(lambda: not any(map(rig.breaker, ops)), "closed breakers")
        await load.until(lambda: rig.metric("store_up") == 1, "the store to be up")
        await load.until(rig.indexed, "an index with entries")
        slowest = max(answer.store_ms for answer in load.answers)
        assert slowest < DEADLINE_MS + BUSY_MS
    assert rig.keys_without_ttl() == []


class Change:
    """How far a counter has moved since this was made."""

    def __init__(self, rig, name, **labels):
        self._read = lambda: rig.metric(name, **labels)
        self._before = self._read()

    def __call__(self) -> float:
        return self._read() - self._before


async def costs_nothing(load, seconds: float = 0.7) -> None:
    """Check that requests do not wait for the store any more."""
    answers = await load.run(seconds)
    assert len(answers) > 10
    # One that waits takes the store's deadline.
    assert median_store_ms(answers) < 10


def hit_share(answers) -> float:
    """Return the share of the known texts that came from the store."""
    known = [answer for answer in answers if answer.is_known]
    assert len(known) > 5
    return sum("exact" in answer.cache_status for answer in known) / len(known)


async def test_redis_is_killed_and_comes_back_empty(rig, load):
    errors = Change(rig, "store_errors_total", kind="connection")
    rig.redis.kill()
    await load.until(lambda: rig.breaker("get") == 2, "an open breaker")
    assert rig.metric("store_up") == 0
    await costs_nothing(load)

    rig.repair()
    await load.until_hits()
    assert errors() >= 5


async def test_redis_stalls_and_goes_on(rig, load):
    errors = Change(rig, "store_errors_total", kind="timeout")
    skipped = Change(rig, "store_skipped_total", op="get")
    rig.redis.pause()
    stalled_at = time.monotonic()
    await load.until(lambda: rig.breaker("get") and rig.breaker("nearest"), "open breakers")
    while time.monotonic() < stalled_at + STALL_S:
        await costs_nothing(load)
    assert rig.metric("store_up") == 0

    rig.repair()
    await load.until_hits()
    assert errors() >= 10
    assert skipped() > 10


@pytest.mark.parametrize("kind", ["oom", "readonly"])
async def test_redis_refuses_writes(rig, load, kind):
    errors = Change(rig, "store_errors_total", kind=kind)
    stored, dropped = Change(rig, "writeback_stored_total"), Change(rig, "writeback_dropped_total")
    with rig.redis.client() as client:
        if kind == "oom":
            client.config_set("maxmemory", 1)
        else:
            client.replicaof("127.0.0.1", 1)
        await load.until(lambda: rig.breaker("put"), "an open breaker")
        answers = await load.run(1)
        assert hit_share(answers) > 0.8
        assert rig.breaker("get") == rig.breaker("nearest") == 0
        await load.until(lambda: rig.metric("store_up") == 1, "a store that answers")
        assert rig.metric("writeback_queue_entries") > 5

    rig.repair()
    await load.until(lambda: rig.metric("writeback_queue_entries") <= 3, "a short queue")
    assert errors() > 0
    assert stored() > 5
    assert dropped() == 0


async def test_redis_is_flushed(rig, load):
    misses = Change(rig, "lookups_total", tier="exact", result="miss")
    with rig.redis.client() as client:
        client.flushall()
    await load.until(lambda: misses() >= len(TEXTS), "misses")
    await load.until_hits()


async def test_the_index_is_dropped(rig, load):
    with rig.redis.client() as client:
        (name,) = client.execute_command("FT._LIST")
        client.ft(name.decode()).dropindex()
    answers = await load.run(0.7)
    assert hit_share(answers) > 0.8
    await load.until(lambda: rig.indexed() >= len(TEXTS), "an index that is filled again")
    assert rig.metric("semantic_index_up") == 1


async def test_redis_is_far_away_for_a_while(rig, load):
    errors = Change(rig, "store_errors_total", kind="timeout")
    stored = Change(rig, "writeback_stored_total")
    rig.relay.delay_s = 0.2
    await load.until(lambda: rig.breaker("get") and rig.breaker("nearest"), "open breakers")
    await costs_nothing(load, 1.5)
    await load.until(lambda: stored() > 0, "writes, which have more time")

    rig.repair()
    await load.until_hits()
    assert errors() >= 10


async def test_replies_come_byte_by_byte(rig, load):
    rig.relay.piece_bytes, rig.relay.delay_s = 1, 0.0001
    errors = Change(rig, "store_errors_total", kind="timeout")
    # Misses are short, and may still come in time: the breaker need not stay open.
    await load.until(lambda: rig.breaker("get") == 2, "an open breaker")

    rig.repair()
    await load.until_hits()
    assert errors() >= 5


async def test_connections_are_reset_in_the_middle_of_a_reply(rig, load):
    errors = Change(rig, "store_errors_total", kind="connection")
    rig.relay.cut_at = 1_000
    await load.until(lambda: rig.breaker("get") == 2, "an open breaker")
    await costs_nothing(load)

    rig.repair()
    await load.until_hits()
    assert errors() >= 5


async def test_replies_are_garbage(rig, load):
    errors = Change(rig, "store_errors_total", kind="protocol")
    rig.relay.garbage = b"\0\xff" * 100
    await load.until(lambda: rig.breaker("get") == 2, "an open breaker")
    await costs_nothing(load)

    rig.repair()
    await load.until_hits()
    assert errors() >= 1


async def test_records_are_garbage(rig, load):
    errors = Change(rig, "undecodable_records_total")
    with rig.redis.client() as client:
        for name in client.scan_iter("cp:e3:*", count=1_000):
            client.hset(name, "record", b"garbage")
    await load.until_hits()
    assert errors() >= len(TEXTS)
    assert rig.breaker("get") == 0


async def test_a_server_that_is_killed_in_mid_write_leaves_entries_whole_or_absent(rig, model_home):
    texts = [f"{text} {n}" for n in range(100) for text in TEXTS]
    with rig.redis.client() as client:
        client.flushall()
        server = await asyncio.to_thread(Server, model_home, rig.redis.url, "--drain-s", "0")
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
            asking = asyncio.create_task(
                http.post("/v1/embeddings", json={"input": texts, "model": MODEL})
            )
            deadline = time.monotonic() + 30
            while client.dbsize() < 30:  # some hold notes of purges
                assert time.monotonic() < deadline
                await asyncio.sleep(0.001)
            server.kill()
            assert isinstance((await asyncio.gather(asking, return_exceptions=True))[0], Exception)

        entries = list(client.scan_iter("cp:e3:*", count=1_000))
        assert 20 <= len(entries) < len(texts)
        lengths = {client.hstrlen(name, "record") for name in entries}
        assert len(lengths) == 1
        assert lengths.pop() > 4 * 384
        assert all(client.hlen(name) >= 2 for name in entries)
    assert rig.keys_without_ttl() == []
    async with rig.load() as load:
        await load.until_hits()


async def test_a_server_ends_soon_although_its_redis_is_gone(rig, model_home):
    server = await asyncio.to_thread(Server, model_home, rig.redis.url, "--drain-s", "0")
    rig.redis.pause()
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
        response = await http.post("/v1/embeddings", json={"input": TEXTS, "model": MODEL})
    assert response.status_code == 200
    server.process.send_signal(signal.SIGTERM)
    code = await asyncio.to_thread(server.process.wait, 30)
    rig.repair()

    assert code == 0
    assert "entries were dropped at shutdown" in server.log
    async with rig.load() as load:
        await load.until_hits()
