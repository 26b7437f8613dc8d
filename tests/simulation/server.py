"""One simulated server: the real parts and routes, wired as `cacheproxy.server` wires them."""

import asyncio
import math
from collections.abc import Callable
from contextlib import AsyncExitStack
from contextvars import copy_context
from dataclasses import replace
from typing import Any, cast

from cacheproxy.admin.reloading import Reloading
from cacheproxy.concurrency.job_thread import JobThread
from cacheproxy.fairness.meters import Meters
from cacheproxy.fairness.seats import Seats
from cacheproxy.keys import KEY_BYTES
from cacheproxy.server.completions import Completions
from cacheproxy.server.embeddings import Embeddings
from cacheproxy.server.local_models import LocalModel
from cacheproxy.server.parts import Parts
from cacheproxy.settings.settings import Settings
from cacheproxy.settings.tenants import Tenants
from cacheproxy.stores.embedded.rows import namespace_bytes, tag_bytes
from cacheproxy.stores.embedded.store import EmbeddedStore
from cacheproxy.stores.protocol import Store
from cacheproxy.stores.purges import Scope
from cacheproxy.stores.redis.index import Hnsw
from cacheproxy.stores.redis.keyed import KeyedStore
from cacheproxy.stores.redis.link import RedisLink
from cacheproxy.stores.redis.purging.purges import RedisPurges
from cacheproxy.stores.redis.store import RedisStore
from cacheproxy.telemetry.metrics import Metrics
from cacheproxy.thresholds.past import WrongHits
from cacheproxy.tiers.guard import StoreGuard
from cacheproxy.tiers.hot import HotTier
from cacheproxy.tiers.writeback import WriteBack
from cacheproxy.upstreams.fallback import Upstreams
from tests.simulation.chat import ChatModel, SimSession, SimUpstream
from tests.simulation.machine import INSTALLED, STATIC_PROBE, TOKENIZER, Machine, SimBatcher, asker
from tests.simulation.network import Network, SimPool
from tests.simulation.world import SimLoop, World

METRICS = Metrics()
"""Of all servers in all worlds: they decide nothing."""


_TROUBLE_S = 12.0


class _ReadyIndexes:
    """Stands for `ProbeIndexes`: an index exists once it is needed."""

    off_because = None

    async def look(self) -> None:
        """There is nothing to find out."""

    async def close(self) -> None:
        """There is nothing to close."""

    async def is_ready(self, index: Any) -> bool:
        return True

    def lost(self, index: Any) -> None:
        raise AssertionError("an index was lost")


class _NoWatch:
    """Stands for `IndexWatch`: indexes are never blind here."""

    def start(self) -> None:
        """Nothing is watched."""

    async def close(self) -> None:
        """Nothing is watched."""


class SimRedisStore(RedisStore):
    """The real store on Redis, but for its connections and the life of its indexes."""

    def __init__(self, pool: SimPool) -> None:
        link = RedisLink(cast(Any, pool), max_connections=8)
        KeyedStore.__init__(self, link, RedisPurges)
        self._hnsw = Hnsw()
        self._indexes = cast(Any, _ReadyIndexes())
        self._watch = cast(Any, _NoWatch())
        self._written = {}


class SimServer:
    """A server process: from its start to its end.

    Attributes:
        is_up: whether it accepts requests.
        killed_at: when it was killed, or None.
        stopped_in_trouble: whether its store could not be reached when it stopped, or shortly
            before: then it may have given up entries.
    """

    def __init__(
        self,
        world: World,
        name: str,
        settings: Settings,
        machine: Machine,
        network: Network,
        judge: Any,
        *,
        is_embedded: bool = False,
        upstream: SimUpstream | None = None,
        chat_judge: ChatModel | None = None,
    ) -> None:
        self.world, self.name, self.judge = world, name, judge
        self.loop = SimLoop(world, name)
        self.loop.is_stopping = False
        self.is_up = False
        self.killed_at: float | None = None
        self.stopped_in_trouble = False
        self.requests: set[asyncio.Task[Any]] = set()
        self._settings, self._machine, self._network = settings, machine, network
        self._is_embedded = is_embedded
        self._upstream, self._chat_judge = upstream, chat_judge
        self.completions: Completions | None = None
        self._running = AsyncExitStack()
        self.starting = self.loop.create_task(self._start())

    async def _start(self) -> None:
        settings = self._settings
        if self._is_embedded:
            self.store: Store = EmbeddedStore(None, max_bytes=settings.cache.store_bytes)
        else:
            self.store = SimRedisStore(SimPool(self._network, self.loop))
        cache, tenants = settings.cache, Tenants(settings.tenants)
        self.batcher = SimBatcher(self._machine, self.loop)
        self.parts = Parts(
            reloading=Reloading(settings),
            metrics=METRICS,
            store=self.store,
            guard=StoreGuard(self.store, deadline_s=cache.deadline_ms / 1000, metrics=METRICS),
            writeback=WriteBack(self.store, max_entries=cache.writeback_entries, metrics=METRICS),
            threads=cast(Any, self.batcher),
            models=(LocalModel(INSTALLED, TOKENIZER, cast(Any, self.batcher), STATIC_PROBE, 0),),
            rerankers=(),
            hot=HotTier(cache.hot_bytes, self.store.purges, terms=tenants.hot_terms),
            tokenizing=JobThread("tokenize"),
            upstreams=Upstreams(settings.all_upstreams, METRICS),
            recorder=None,
            tenants=tenants,
            wrong_hits=WrongHits(),
            meters=Meters(tenants.limits(), lambda whose: METRICS.shed.labels(whose).inc()),
            seats=Seats(1, monotonic=self.loop.time),
        )
        self.embeddings = Embeddings(self.parts)
        if self._upstream is not None and self._chat_judge is not None:
            for one in self.parts.upstreams.all():
                one.start = lambda: None
                one._session = cast(Any, SimSession(self._upstream, self.loop))
            self.completions = Completions(self.parts)
            self._chat_judge.watch(self, self.completions)
        self._watch()
        async with AsyncExitStack() as running:
            await self.parts.start(running)
            await self.parts.guard.get_many([bytes(KEY_BYTES)])
            self.embeddings.start(running)
            if self.completions is not None:
                self.completions.start(running)
            self._running = running.pop_all()
        self.is_up = True

    def _watch(self) -> None:
        """Let the model see verdicts and labels, and whose background checks begin."""
        for thresholds in self.embeddings._thresholds:
            self.judge.watch(self, thresholds)
        put = self.embeddings.spare_work.put

        def put_for_asker(begin: Any) -> None:
            context = copy_context()
            by = asker.get()
            if by is not None:
                context.run(asker.set, replace(by, is_check=True))
            put(lambda: context.run(begin))

        self.embeddings.spare_work.put = put_for_asker

    def lasting_entries(self, scope: Scope) -> int:
        """Return how many entries in scope the embedded store has that do not expire soon."""
        if not isinstance(self.store, EmbeddedStore):
            return 0
        namespace = namespace_bytes(scope.namespace_id)
        tag = None if scope.tag is None else tag_bytes(scope.namespace_id, scope.tag)
        (found,) = self.store._writer._connection.execute(
            "SELECT count(*) FROM entries WHERE partition BETWEEN ?1 AND ?2 AND expires_at > ?3"
            " AND (?4 IS NULL OR key = ?4)"
            " AND (?5 IS NULL OR key IN (SELECT key FROM tags WHERE tag = ?5))",
            (
                *(namespace + bytes(8), namespace + b"\xff" * 8),
                *(self.world.wall() + 1_000.0, scope.key, tag),
            ),
        ).fetchone()
        return int(found)

    def do(self, work: Any) -> "asyncio.Task[Any]":
        """Run something in the server."""
        task = self.loop.create_task(work)
        self.requests.add(task)
        task.add_done_callback(self.requests.discard)
        return task

    def kill(self) -> None:
        """End the process at this instant."""
        self.is_up = False
        self.killed_at = self.world.now
        self.loop.kill()
        self._network.cut(self.loop)

    def stop(self, then: Callable[[], object] = lambda: None) -> "asyncio.Task[None]":
        """End the process as SIGTERM does; then do something."""
        self.is_up = False
        self._look_for_trouble()
        return self.loop.create_task(self._stop(then))

    def _look_for_trouble(self) -> None:
        disturbed = self._network.disturbed_at.get(self.loop, -math.inf)
        is_bad = self._network.is_disturbed(self.loop) or disturbed > self.world.now - _TROUBLE_S
        self.stopped_in_trouble |= is_bad

    async def _stop(self, then: Callable[[], object]) -> None:
        await asyncio.wait({self.starting})
        if self.requests:
            await asyncio.wait(self.requests, timeout=5.0)
        for task in list(self.requests):
            task.cancel()
        if self.requests:
            await asyncio.wait(self.requests)
        self.loop.is_stopping = True
        try:
            await self._running.aclose()
        finally:
            self._look_for_trouble()
            self.loop.kill()
            then()
