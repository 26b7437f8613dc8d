"""The parts that all routes share, and how tiers are assembled from them."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, TypeVar

from cacheproxy.admin.reloading import Reloading
from cacheproxy.concurrency.job_thread import JobThread
from cacheproxy.fairness.meters import Meters
from cacheproxy.fairness.seats import Seats
from cacheproxy.inference.threads import InferenceThreads
from cacheproxy.keys import Namespace
from cacheproxy.modelkit.install import InstalledModel
from cacheproxy.probes.probe import Probe
from cacheproxy.records import Record
from cacheproxy.server.local_models import (
    LocalModel,
    LocalReranker,
    load_models,
    load_rerankers,
)
from cacheproxy.settings.changes import settings_hash
from cacheproxy.settings.settings import Settings
from cacheproxy.settings.tenants import Tenants
from cacheproxy.stores.factory import make_store
from cacheproxy.stores.gauges import show_store
from cacheproxy.stores.protocol import Store
from cacheproxy.telemetry.metrics import Metrics
from cacheproxy.telemetry.recorder import Recorder
from cacheproxy.thresholds.controller import Controller
from cacheproxy.thresholds.past import WrongHits
from cacheproxy.thresholds.sharing import EvidenceSharing, EvidenceSource
from cacheproxy.tiers.exact import ExactTier
from cacheproxy.tiers.guard import StoreGuard
from cacheproxy.tiers.hot import HotTier
from cacheproxy.tiers.keeping import Keeper
from cacheproxy.tiers.keyed import KeyedTiers
from cacheproxy.tiers.lifetime import Lifetimes
from cacheproxy.tiers.reader import RecordReader
from cacheproxy.tiers.semantic import SemanticTier
from cacheproxy.tiers.writeback import WriteBack
from cacheproxy.upstreams.fallback import Upstreams

R = TypeVar("R", bound=Record)

_SEATS_A_THREAD = 2
"""Requests of a tenant at the local models while others are there: as many as keep a core busy."""

_FLUSH_S = 10.0
"""How long shutdown waits for write-backs."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of one server.

    The first of the models that embed, and of the rerankers, is the default one. Embeddings and
    scores share the hot tier; their keys never meet.
    """

    reloading: Reloading
    metrics: Metrics
    store: Store
    guard: StoreGuard
    writeback: WriteBack
    threads: InferenceThreads
    models: tuple[LocalModel, ...]
    rerankers: tuple[LocalReranker, ...]
    hot: HotTier[Any]
    tokenizing: JobThread
    upstreams: Upstreams
    recorder: Recorder | None
    tenants: Tenants
    meters: Meters
    seats: Seats
    wrong_hits: WrongHits

    @property
    def settings(self) -> Settings:
        """The settings that run."""
        return self.reloading.settings

    def keyed_tiers(self, hot: HotTier[R], reader: RecordReader[R]) -> KeyedTiers[R]:
        """Return the hot and the exact tier of one kind of records."""
        exact = ExactTier(self.guard, self.writeback, reader)
        return KeyedTiers(hot, exact, self.store.purges)

    def keeper(self, hot: HotTier[R], pack: Callable[[R], bytes]) -> Keeper[R]:
        """Return the write-back of one kind of records."""
        return Keeper(hot, self.writeback, pack)

    def semantic_tier(
        self,
        model: str,
        fingerprint: str,
        probe: Probe,
        controller: Controller,
        reader: RecordReader[R],
        *,
        checks_repeats: bool = True,
    ) -> SemanticTier[R]:
        """Return the semantic tier of a model."""
        return SemanticTier(
            self.guard,
            probe,
            controller,
            reader=reader,
            fingerprint=fingerprint,
            min_tokens=self.settings.semantic.min_tokens,
            checks_repeats=checks_repeats,
            model=model,
            metrics=self.metrics,
            min_similarity=self.settings.semantic.min_similarity,
            wrong_hits=self.wrong_hits,
        )

    def lifetimes(self, default_s: Callable[[Settings], float]) -> Lifetimes:
        """Return the TTLs of entries, including those of namespaces that have their own."""
        lifetimes = Lifetimes(default_s(self.settings), by_namespace_id={}, jitter=0)

        def take(settings: Settings) -> None:
            by_namespace_id = {
                Namespace(tenant, name).id: ttl_s
                for tenant, lives in settings.namespace_ttl_s.items()
                for name, ttl_s in lives.items()
            }
            lifetimes.replace(default_s(settings), by_namespace_id, settings.cache.ttl_jitter)

        self.reloading.take_by(take)
        return lifetimes

    async def start(self, running: AsyncExitStack) -> None:
        """Open the store and start the threads; `running` stops them in reverse order.

        Raises:
            StoreError: the store cannot be opened.
            ConfigError: requests cannot be recorded.
        """
        running.callback(self.tokenizing.close)
        if self.recorder is not None:
            self.recorder.start()
            running.callback(self.recorder.stop)
        await self.store.open()
        running.push_async_callback(self.store.close)
        running.push_async_callback(self.guard.close)
        self.writeback.start()
        running.push_async_callback(self.writeback.stop, _FLUSH_S)
        self.upstreams.start()
        running.push_async_callback(self.upstreams.stop)
        self.threads.start()
        running.callback(self.threads.stop)


def make_parts(settings: Settings, installed: Sequence[InstalledModel], metrics: Metrics) -> Parts:
    """Return the parts, with the models loaded; nothing is started or opened yet.

    Raises:
        ConfigError: ONNX Runtime cannot use the device.
        ModelError: the probe's model is not installed.
    """
    reloading = Reloading(settings)
    tenants = Tenants(settings.tenants)
    upstreams = Upstreams(settings.all_upstreams, metrics)
    reloading.prepare_by(lambda after: upstreams.prepare(after.all_upstreams))
    reloading.take_by(lambda after: metrics.settings_info.info({"hash": settings_hash(after)}))
    store = make_store(settings)
    show_store(store, metrics)
    batching = settings.batching
    metrics.batch_window.set(batching.window_ms / 1000)
    threads = InferenceThreads(batching.threads)
    return Parts(
        reloading=reloading,
        metrics=metrics,
        store=store,
        guard=StoreGuard(store, deadline_s=settings.cache.deadline_ms / 1000, metrics=metrics),
        writeback=WriteBack(store, max_entries=settings.cache.writeback_entries, metrics=metrics),
        threads=threads,
        models=load_models(settings, installed, threads, metrics),
        rerankers=load_rerankers(settings, installed, threads, metrics),
        hot=HotTier(settings.cache.hot_bytes, store.purges, terms=tenants.hot_terms),
        tokenizing=JobThread("cacheproxy-tokenize"),
        upstreams=upstreams,
        recorder=_make_recorder(settings, metrics),
        tenants=tenants,
        meters=Meters(
            tenants.limits(),
            lambda whose: metrics.shed.labels(whose).inc(),
            namespaces=tenants.namespace_limits(),
        ),
        seats=Seats(_SEATS_A_THREAD * threads.count),
        wrong_hits=WrongHits(),
    )


def _make_recorder(settings: Settings, metrics: Metrics) -> Recorder | None:
    record = settings.record
    if record.path is None:
        return None
    return Recorder(
        record.path, with_texts=record.texts, max_bytes=record.max_bytes, metrics=metrics
    )


class SharedEvidence:
    """Shares the earned thresholds of a server's models with other processes through the store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._sharings: list[EvidenceSharing] = []
        self._last: set[asyncio.Task[None]] = set()
        self._is_running = False

    def add(self, thresholds: EvidenceSource, fingerprint: str) -> None:
        """Share a model's evidence under a fingerprint, from now on or once `start` is called."""
        sharing = EvidenceSharing(self._store, thresholds, fingerprint=fingerprint)
        self._sharings.append(sharing)
        if self._is_running:
            sharing.start()

    def remove(self, thresholds: EvidenceSource) -> None:
        """Share what a model has learned so far, and nothing any more; on the event loop."""
        for sharing in [one for one in self._sharings if one.shares(thresholds)]:
            self._sharings.remove(sharing)
            if self._is_running:
                self._last.add(task := asyncio.create_task(sharing.stop()))
                task.add_done_callback(self._last.discard)

    def start(self) -> None:
        """Start sharing, on the running event loop."""
        self._is_running = True
        for sharing in self._sharings:
            sharing.start()

    async def stop(self) -> None:
        """Share the remaining evidence, and stop."""
        await asyncio.gather(*self._last)
        for sharing in self._sharings:
            await sharing.stop()
