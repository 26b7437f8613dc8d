"""Assembles a server from settings and installed models into ASGI applications.

A new `App` has its models warm. `App.start` returns when the store is open; if a part fails to
start, those that have started are stopped again. `App.stop` returns when all acknowledged entries
are written.
"""

import asyncio
import os
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any, Protocol, cast

from pydantic import SecretStr

import cacheproxy
from cacheproxy.admin.app import make_admin_app
from cacheproxy.admin.entries import EntryFinder
from cacheproxy.admin.operators import Operators
from cacheproxy.admin.reloading import Commit, ReadSettings, Reloads, ReloadSource
from cacheproxy.admin.report import (
    ServerFigures,
    Thresholds,
    describe_chat_thresholds,
    describe_store,
    describe_thresholds,
    named_namespaces,
)
from cacheproxy.admin.workers import AllWorkers, Respondent
from cacheproxy.api.access.key_file import KeyFile
from cacheproxy.api.access.key_ring import KeyRing
from cacheproxy.api.callers import Callers
from cacheproxy.api.edge import Edge
from cacheproxy.api.openapi import PUBLIC
from cacheproxy.api.service import described_routes
from cacheproxy.concurrency.background import stop_tasks
from cacheproxy.concurrency.loop_delay import watch_loop
from cacheproxy.keys import KEY_BYTES
from cacheproxy.modelkit.install import InstalledModel
from cacheproxy.server.completions import Completions
from cacheproxy.server.embeddings import Embeddings
from cacheproxy.server.local_models import log_loaded
from cacheproxy.server.parts import make_parts
from cacheproxy.server.reranking import Reranking
from cacheproxy.server.rollout.warm_up import WarmUp
from cacheproxy.server.route_table import absent_paths, make_watch, pass_through, public_table
from cacheproxy.server.store_check import tell_of_store
from cacheproxy.settings.settings import Settings
from cacheproxy.settings.tenants import Tenants
from cacheproxy.telemetry.history import MetricsSource, OwnMetrics
from cacheproxy.telemetry.journal import Journal
from cacheproxy.telemetry.logs import set_level
from cacheproxy.telemetry.lookup_counts import lookup_totals
from cacheproxy.telemetry.metrics import Metrics
from cacheproxy.telemetry.tail import Tail
from cacheproxy.telemetry.tracing import start_tracing
from cacheproxy.tiers.hot import HotTier


class Supervisor(MetricsSource, ReloadSource, Protocol):
    """What a worker asks about all workers."""


class App:
    """A server's parts and their life cycle.

    Attributes:
        reloading: what the parts do with new settings.
        reloads: reloads the settings of all processes.
        metrics: the metrics of this process.
        edge: the application for clients.
        owner_of: returns for whom a request with these headers works.
        admin_edge: the application for operators.
    """

    def __init__(
        self,
        settings: Settings,
        installed: Sequence[InstalledModel],
        supervisor: Supervisor | None = None,
        read: ReadSettings | None = None,
        *,
        warms_up: bool = True,
    ) -> None:
        """Make the parts and load the models, of which the first is the default one.

        Args:
            settings: to begin with.
            installed: the models.
            supervisor: if there are several workers: has the metrics of all, and reloads all.
            read: reads the settings again, where there is no supervisor; else there is no reload.
            warms_up: whether to warm up, if the settings say so; not in place of another worker.

        Raises:
            ConfigError: ONNX Runtime cannot use the device.
            ModelError: the probe's model is not installed.
        """
        self.metrics = metrics = Metrics()
        self._own_metrics = OwnMetrics(metrics)
        self._all_metrics: MetricsSource = supervisor or self._own_metrics
        self._tail = Tail(os.getpid())
        self._draining = False
        self._running = AsyncExitStack()
        self._parts = make_parts(settings, installed, metrics)
        self.reloading = self._parts.reloading
        self.reloads: ReloadSource = supervisor or Reloads(
            read or (lambda: settings),
            lambda: self.reloading.settings,
            self._take,
            metrics.reload,
        )
        self._embeddings = Embeddings(self._parts)
        self._reranking = Reranking(self._parts, self._embeddings.spare_work)
        has_chat = self._parts.upstreams.have_chat
        self._completions = Completions(self._parts) if has_chat else None
        self._warm_up = self._make_warm_up() if warms_up else None
        self._show()
        self._tracer = start_tracing()
        watch = make_watch(self._parts)
        keys = KeyRing(settings.api_keys, is_needed=settings.needs_key)
        self._key_file = (
            None
            if settings.api_keys_file is None
            else KeyFile(settings.api_keys_file, keys, metrics.key_reloads)
        )
        callers = Callers(keys, self._parts.meters, seen=self._parts.seats.note)
        self.owner_of = callers.owner_of
        self._reload_keys(keys, callers)
        tail = None if settings.admin.port is None else self._tail
        table = public_table(
            self._parts,
            self._embeddings,
            self._reranking,
            self._completions,
            callers,
            watch,
            not_ready_because=self._not_ready_because,
            metrics=self._all_metrics,
        )
        journals = (
            Journal(settings.log.requests, self._tracer, tail),
            Journal(settings.log.requests),
        )
        self.edge = Edge(
            [
                *described_routes(PUBLIC, table, needs_key=settings.needs_key),
                *pass_through(self._parts, callers, watch, table),
            ],
            journals[0],
            absent=absent_paths(
                has_upstream=bool(self._parts.upstreams),
                has_reranker=bool(self._reranking.routes),
            ),
        )
        operators = Operators(_secret(settings.admin.token), keys)
        self._reload_watching(journals, operators)
        self._workers = AllWorkers(self._all_metrics.ask_all)
        self._all_metrics.answer = self._make_respondent().answer
        self.admin_edge = make_admin_app(
            self._parts.store,
            EntryFinder(
                self._parts.store,
                self._workers,
                embedding=self._embeddings.routes,
                reranking=self._reranking.routes,
                key_of_request=self._completions.key_of if self._completions else None,
            ),
            self._describe,
            self._all_metrics,
            self._workers,
            self.reloads.reload,
            journals[1],
            named=named_namespaces(settings),
            operators=operators,
            not_ready_because=self._not_ready_because,
            needs_key=settings.admin.token is not None,
        )

    async def _take(self, settings: Settings) -> None:
        self.reloading.prepare(settings)()

    def _reload_keys(self, keys: KeyRing, callers: Callers) -> None:
        """Have API keys, and the limits of their tenants, change with the settings."""
        meters = self._parts.meters

        def prepare(settings: Settings) -> Commit:
            more = {} if self._key_file is None else self._key_file.read()
            tenants = Tenants(settings.tenants)

            def commit() -> None:
                keys.replace(more, fixed=settings.api_keys)
                meters.replace(tenants.limits(), tenants.namespace_limits())
                callers.forget()

            return commit

        self.reloading.prepare_by(prepare)

    def _reload_watching(self, journals: Sequence[Journal], operators: Operators) -> None:
        """Have the log, the metrics and the admin token change with the settings."""

        def take(settings: Settings) -> None:
            set_level(settings.log.level)
            for journal in journals:
                journal.log(settings.log.requests)
            operators.token = _secret(settings.admin.token)
            if self._all_metrics is self._own_metrics:  # else the supervisor shows them
                self.metrics.busiest.shown = settings.metrics.namespaces

        self.reloading.take_by(take)

    def _not_ready_because(self) -> str | None:
        if self._draining:
            return "draining"
        return None if self._warm_up is None else self._warm_up.not_ready_because

    def _make_warm_up(self) -> WarmUp | None:
        settings = self._parts.settings
        if settings.warm.recording is None and settings.warm.texts is None:
            return None
        routes = [
            (route, self._embeddings.readers[route.model.name])
            for route in self._embeddings.routes
            if route.model.is_local
        ]
        metrics = self.metrics.rollout
        return WarmUp(settings.warm, routes, metrics, in_any_order=settings.workers > 1)

    def _show(self) -> None:
        """Register gauges for the served models, the queues and the hot tiers."""
        metrics = self.metrics
        parts = self._parts
        installed = [
            *(model.installed for model in parts.models),
            *(model.installed for model in parts.rerankers),
        ]
        metrics.build_info.info(
            {
                "version": cacheproxy.__version__,
                "model": ",".join(one.name for one in installed),
                "fingerprint": ",".join(one.fingerprint for one in installed),
                "device": parts.settings.device,
            }
        )
        kinds: list[Embeddings | Completions] = [self._embeddings]
        if self._completions is not None:
            kinds.append(self._completions)
        hot_tiers = self._hot_tiers()
        metrics.hot_entries.set_function(lambda: sum(len(hot) for hot in hot_tiers))
        metrics.hot_bytes.set_function(lambda: sum(hot.size_bytes for hot in hot_tiers))
        metrics.semantic_checks_waiting.set_function(lambda: sum(kind.waiting for kind in kinds))

    def _hot_tiers(self) -> list[HotTier[Any]]:
        of_chat = [] if self._completions is None else [self._completions.hot]
        return [self._parts.hot, *of_chat]

    def _make_respondent(self) -> Respondent:
        purges = self._parts.store.purges
        return Respondent(
            self.metrics,
            tail=self._tail,
            wrong_hits=self._parts.wrong_hits,
            hot_tiers=self._hot_tiers(),
            writeback=self._parts.writeback,
            generation=lambda: purges.generation,
            thresholds=self._describe_thresholds,
        )

    async def start(self) -> None:
        """Open the store and start the threads; requests are accepted once it returns.

        Raises:
            StoreError: the store cannot be opened.
            ConfigError: requests cannot be recorded.
        """
        async with AsyncExitStack() as running:
            watching = asyncio.create_task(watch_loop(self.metrics.loop_delay.labels()))
            running.push_async_callback(stop_tasks, watching)
            if self._tracer is not None:
                running.callback(self._tracer.stop)
            await self._parts.start(running)
            await self._parts.guard.get_many(
                [bytes(KEY_BYTES)]
            )  # finds out whether the store answers
            telling = asyncio.create_task(tell_of_store(self._parts.settings))
            running.push_async_callback(stop_tasks, telling)
            if self._key_file is not None:
                self._key_file.start()
                running.push_async_callback(self._key_file.stop)
            self._embeddings.start(running)
            if self._completions is not None:
                self._completions.start(running)
            if (
                self._parts.settings.admin.port is not None
                and self._all_metrics is self._own_metrics
            ):
                self._own_metrics.start()
                running.callback(self._own_metrics.stop)
            if self._warm_up is not None:
                self._warm_up.start(running)
            self._running = running.pop_all()
        for model in self._parts.models:
            log_loaded(model)
        for reranker in self._parts.rerankers:
            log_loaded(reranker)

    def drain(self) -> None:
        """Report not ready from now on, so that load balancers send requests elsewhere."""
        self._draining = True
        self.edge.close_connections()

    async def stop(self) -> None:
        """Flush pending write-backs and release everything; no request may be in flight."""
        await self._running.aclose()

    async def _describe(self) -> ServerFigures:
        settings, store = self._parts.settings, self._parts.store
        hot, purges = self._parts.hot, store.purges
        models = [
            *(route.model.name for route in self._embeddings.routes),
            *(route.model.name for route in self._reranking.routes),
        ]
        return {
            "version": cacheproxy.__version__,
            "models": models,
            "lookups": lookup_totals(self.metrics),
            "hot": {"entries": len(hot), "size_bytes": hot.size_bytes},
            "purges": {"generation": purges.generation, "heard": purges.is_listening},
            "store": await describe_store(store, settings),
            "semantic": cast(Thresholds, await self._workers.thresholds()),
        }

    def _describe_thresholds(self) -> Thresholds:
        settings = self._parts.settings
        described = describe_thresholds(settings, self._embeddings.accounts())
        if self._completions is not None:
            accounts = self._completions.accounts()
            described["chat"] = describe_chat_thresholds(settings, accounts)
        return described


def _secret(given: SecretStr | None) -> str | None:
    return None if given is None else given.get_secret_value()
