"""Failovers under load, each shortly after a purge: is a purged answer ever served again?

Every answer of the upstream is unique, so that each tells when it was made. An answer that was made
before a purge of it was sent must not be served to a request that is sent after the purge was
acknowledged and 100 ms, which a busy machine is granted ten times of, have passed. If it was
acknowledged while servers were reconnecting, this counts from when all of them hear again.
"""

import asyncio
import itertools
import json
import random
import re
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

import aiohttp
from chatting import PATH, body_for
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import RedisError
from redis.retry import Retry
from redis_server import RedisServer
from redis_topology import SLOTS, SentinelPair, ThreeNodes
from upstream import Exchange, completion

_FIRST_SLOTS = {first for first, _ in SLOTS}
"""By these, which are not moved, masters are known."""

_QUESTIONS = [f"What is number {n}?" for n in range(12)]
_TAGS = ("even", "odd")
_HEARD_S = 1.0
_CLIENTS = 2
_PAUSE_S = 0.01
_WAIT_S = 90.0
_STAGE = re.compile(r"(\w+);dur=([\d.]+)")


class Topology(Protocol):
    """Masters that each have a replica, which takes over."""

    def masters(self) -> list[RedisServer]:
        """Return the masters."""

    def replica_of(self, master: RedisServer) -> RedisServer:
        """Return its replica."""

    hows: tuple[str, ...]
    """What is done, one after the other; methods of `Failovers`."""

    def take_over(self, replica: RedisServer) -> None:
        """Make a replica a master, though its master is well and does not know it."""

    def rejoin(self, old: RedisServer) -> None:
        """Have a master that was replaced, and runs, be a replica."""

    def is_whole(self) -> bool:
        """Whether every master has a replica that is up to date, and can take over."""


class Pair:
    """A master, its replica, and a Sentinel."""

    hows = "partition", "kill", "lag", "take_over", "freeze"

    def __init__(self, pair: SentinelPair) -> None:
        self._pair = pair

    def masters(self) -> list[RedisServer]:
        return [self._pair.master]

    def replica_of(self, master: RedisServer) -> RedisServer:
        return next(one for one in self._pair.servers if one is not master)

    def take_over(self, replica: RedisServer) -> None:
        self._pair.fail_over()

    def rejoin(self, old: RedisServer) -> None:
        with old.client() as client:  # at once: Sentinel takes its time
            client.replicaof(self._pair.master.host, self._pair.master.port)

    def is_whole(self) -> bool:
        with self._pair.master.client() as client:
            replicas = client.info("replication")
        return replicas["role"] == "master" and "online" in str(replicas.get("slave0"))


class Cluster:
    """Three masters, each with a replica."""

    hows = "partition", "lag", "move_slots", "take_over", "freeze", "kill"

    def __init__(self, cluster: ThreeNodes) -> None:
        self._cluster = cluster
        self._pairs = [(node, cluster.add_replica(node)) for node in cluster.nodes]

    def masters(self) -> list[RedisServer]:
        """Return the masters, as a majority of the nodes that answer sees them."""
        nodes = [node for pair in self._pairs for node in pair]
        seen = []
        for asked in nodes:
            once = {"socket_timeout": 0.5, "retry": Retry(NoBackoff(), 0)}
            with suppress(RedisError), asked.client(**once) as client:
                client.response_callbacks.clear()
                slots = client.execute_command("CLUSTER", "SLOTS")
                ports = {first: master[1] for first, _, master, *_ in slots}
                seen.append(tuple(ports.get(first) for first, _ in SLOTS))
        most = max(seen, key=seen.count)
        return [node for node in nodes if node.port in most]

    def replica_of(self, master: RedisServer) -> RedisServer:
        first, second = next(pair for pair in self._pairs if master in pair)
        return second if master is first else first

    def take_over(self, replica: RedisServer) -> None:
        self._cluster.ask(replica, "CLUSTER", "FAILOVER", "TAKEOVER")

    def rejoin(self, old: RedisServer) -> None:
        pass  # the cluster sees to it

    def move_slots(self) -> int:
        """Move the slots of all entries to the next master, while these are used."""
        masters, ask, moved = self.masters(), self._cluster.ask, 0
        ids = {one: ask(one, "CLUSTER", "MYID").decode() for one in masters}
        for place, source in enumerate(masters):
            target = masters[(place + 1) % len(masters)]
            for slot in {key_slot(name) for name in ask(source, "KEYS", "cp:e*")}:
                if slot in _FIRST_SLOTS or ask(source, "CLUSTER", "COUNTKEYSINSLOT", slot) == 0:
                    continue
                ask(target, "CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source])
                ask(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", ids[target])
                while names := ask(source, "CLUSTER", "GETKEYSINSLOT", slot, 10):
                    to = (target.host, target.port, "", 0, 5_000, "REPLACE", "KEYS", *names)
                    ask(source, "MIGRATE", *to)
                for one in (target, source, *masters):
                    ask(one, "CLUSTER", "SETSLOT", slot, "NODE", ids[target])
                moved += 1
        return moved

    def is_whole(self) -> bool:
        masters = self.masters()
        if len(masters) != len(SLOTS):
            return False
        for master in masters:
            with master.client() as client:
                if "online" not in str(client.info("replication").get("slave0")):
                    return False
            for node in (master, self.replica_of(master)):
                if b"cluster_state:ok" not in self._cluster.ask(node, "CLUSTER", "INFO"):
                    return False
                if b"fail" in self._cluster.ask(node, "CLUSTER", "NODES"):
                    return False
        return True


@dataclass
class Purge:
    """A purge by tag, or of everything, and when it was sent and acknowledged."""

    tag: str | None
    how: str
    sent_at: float
    acknowledged_at: float
    heard_at: float | None
    """When all servers have heard of it; None while one may not have, as it is reconnecting."""


@dataclass
class Report:
    """What happened.

    Attributes:
        acknowledged: purges that were.
        refused: purges that were answered with 503, and repeated.
        answers: to the load, and how many of them came from the cache.
        slowest_purge_s: the longest that one took, whether it was or not.
        slowest_store_ms: the longest that an answer waited for the store.
        purged_served: answers that a purge should have kept from being served.
        not_200: what was answered in place of an answer.
    """

    rounds: int = 0
    acknowledged: int = 0
    refused: int = 0
    answers: int = 0
    hits: int = 0
    slowest_purge_s: float = 0.0
    slowest_store_ms: float = 0.0
    purged_served: list[str] = field(default_factory=list)
    not_200: list[str] = field(default_factory=list)
    took_s: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        longest_s = max(self.took_s, default=0.0)
        return (
            f"{self.rounds} rounds, a new master after {longest_s:.1f} s at most; "
            f"{self.acknowledged} purges acknowledged, {self.refused} refused and repeated, "
            f"told within {self.slowest_purge_s:.1f} s; "
            f"{self.answers} answers, {self.hits} hits, {self.slowest_store_ms:.0f} ms at most for "
            f"the store; not 200: {len(self.not_200)}; "
            f"purged answers served: {len(self.purged_served)}"
        )


class Failovers:
    """Puts a load on servers in front of a topology, and fails it over."""

    def __init__(self, topology: Topology, servers, seed: int, hows: Sequence[str]) -> None:
        self._topology = topology
        self._hows = hows
        self._servers = servers
        self._random = random.Random(seed)  # noqa: S311
        self._numbers = itertools.count()
        self._made_at: dict[int, float] = {}
        self._purges: list[Purge] = []
        self._refused: str | None = "none"
        self._how, self._is_broken = "", False
        self.report = Report()

    async def answer(self, exchange: Exchange) -> None:
        """Answer as the upstream: a number that never came before."""
        number = next(self._numbers)
        self._made_at[number] = time.monotonic()
        asked = exchange.asked
        await exchange.answer(200, json.dumps(completion(asked, text=str(number))).encode())

    async def run(self, rounds: int) -> Report:
        """Fail over so many times, after earlier calls; return what happened in all."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(60)) as http:
            load = [
                asyncio.create_task(self._ask_on(http, server, first))
                for server in self._servers
                for first in range(_CLIENTS)
            ]
            try:
                for _ in range(rounds):
                    await self._until_well()
                    await self._break(http, self._hows[self.report.rounds % len(self._hows)])
                    self.report.rounds += 1
                await self._until_well()
                await asyncio.sleep(_HEARD_S)
            finally:
                for task in load:
                    task.cancel()
                ended = await asyncio.gather(*load, return_exceptions=True)
        assert all(isinstance(one, asyncio.CancelledError) for one in ended), ended
        return self.report

    async def _break(self, http: aiohttp.ClientSession, how: str) -> None:
        topology, self._how = self._topology, how
        old = self._random.choice(await asyncio.to_thread(topology.masters))
        replica = topology.replica_of(old)
        tag = self._random.choice((None, *_TAGS))
        began_at = time.monotonic()
        if how == "move_slots":
            moving = asyncio.create_task(asyncio.to_thread(topology.move_slots))
            await self._purge(http, tag)
            assert await moving > 0
            await self._purge(http, tag)
            return
        if how == "lag":
            replica.pause()  # it misses the purge, which so is not acknowledged, and takes over
            self._is_broken = True
            purging = asyncio.create_task(self._purge(http, tag))
            await asyncio.sleep(0.3)
            old.kill()
            replica.resume()
        elif how == "take_over":
            self._is_broken = True
            taking = asyncio.create_task(asyncio.to_thread(topology.take_over, replica))
            await asyncio.sleep(self._random.random() * 0.3)
            purging = asyncio.create_task(self._purge(http, tag))
            await taking
        else:
            await self._purge(http, tag)
            self._is_broken = True
            await asyncio.sleep(self._random.random() * 0.05)
            {"kill": old.kill, "freeze": old.pause, "partition": old.cut_off}[how]()
            # One more is sent to a master that does not answer.
            purging = asyncio.create_task(self._purge(http, self._random.choice((None, *_TAGS))))
        await self._until(lambda: old not in topology.masters(), "a new master")
        self.report.took_s.append(time.monotonic() - began_at)
        await purging
        await self._purge_again_if_refused(http)
        old.mend_wire()
        if old.is_running:
            old.resume()
        else:
            await asyncio.to_thread(old.start)
        if how not in ("take_over", "partition"):  # they are told that they are replicas
            await asyncio.to_thread(topology.rejoin, old)

    async def _until_well(self) -> None:
        await self._until(self._topology.is_whole, "replicas that are up to date")
        for server in self._servers:
            await self._until(lambda s=server: s.metric("purges_heard") == 1, "a subscription")
            await self._until(lambda s=server: s.metric("store_up") == 1, "a store that is up")
            await self._until(lambda s=server: s.metric("store_breaker_state") == 0, "no breaker")
        self._is_broken = False
        for purge in self._purges:
            purge.heard_at = purge.heard_at or time.monotonic()
        hits = self.report.hits
        await self._until(lambda: self.report.hits > hits + 20, "hits")

    async def _until(self, condition, what: str) -> None:
        deadline = time.monotonic() + _WAIT_S
        while True:
            try:
                if await asyncio.to_thread(condition):
                    return
            except Exception as error:  # of a process that is not there yet
                what = f"{what}: {error!r}" if ":" not in what else what
            assert time.monotonic() < deadline, f"waited in vain for {what}"
            await asyncio.sleep(0.05)

    async def _purge(self, http: aiohttp.ClientSession, tag: str | None) -> None:
        order = {"tenant": "default", "namespace": "default"}
        order |= {"all": True} if tag is None else {"tag": tag}
        sent_at = time.monotonic()
        url = f"{self._servers[0].admin_url}/admin/purge"
        async with http.post(url, json=order) as answer:
            told = await answer.text()
        now = time.monotonic()
        self.report.slowest_purge_s = max(self.report.slowest_purge_s, now - sent_at)
        if answer.status == 200:
            self._purges.append(
                Purge(tag, self._how, sent_at, now, None if self._is_broken else now)
            )
            self.report.acknowledged += 1
            self._refused = "none"
        else:
            assert answer.status == 503, told
            self.report.refused += 1
            self._refused = tag

    async def _purge_again_if_refused(self, http: aiohttp.ClientSession) -> None:
        deadline = time.monotonic() + _WAIT_S
        while self._refused != "none":
            await self._purge(http, self._refused)
            assert time.monotonic() < deadline, "a purge is refused for ever"
            await asyncio.sleep(0.1)

    async def _ask_on(self, http: aiohttp.ClientSession, server, first: int) -> None:
        for n in itertools.count(first):
            place = n % len(_QUESTIONS)
            tag, sent_at = _TAGS[place % 2], time.monotonic()
            body = body_for(_QUESTIONS[place], temperature=0)
            headers = {"x-cacheproxy-tags": tag}
            async with http.post(server.url + PATH, json=body, headers=headers) as answer:
                content = await answer.text()
            self.report.answers += 1
            if answer.status != 200:
                self.report.not_200.append(f"{answer.status}: {content[:200]}")
                continue
            self.report.hits += "hit" in answer.headers["cache-status"]
            number = int(json.loads(content)["choices"][0]["message"]["content"])
            told = f"server {self._servers.index(server)}: {answer.headers['cache-status']}"
            self._check(number, tag, sent_at, told)
            stages = dict(_STAGE.findall(answer.headers["server-timing"]))
            store_ms = float(stages.get("exact", 0)) + float(stages.get("semantic", 0))
            self.report.slowest_store_ms = max(self.report.slowest_store_ms, store_ms)
            await asyncio.sleep(_PAUSE_S)

    def _check(self, number: int, tag: str, sent_at: float, status: str) -> None:
        for purge in self._purges:
            is_named = purge.tag in (None, tag) and self._made_at[number] < purge.sent_at
            if is_named and purge.heard_at and sent_at > purge.heard_at + _HEARD_S:
                late_s = sent_at - purge.acknowledged_at
                self.report.purged_served.append(
                    f"{late_s:.1f} s after the purge of {purge.tag} ({purge.how}): {status}"
                )
