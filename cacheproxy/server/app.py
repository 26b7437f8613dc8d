"""Puts the parts together: from settings and an installed model to an ASGI application.

The only file that knows every part. `App.start` ends when the model is warm and the store is open;
`App.stop` ends when nothing that was answered is lost.
"""

import time
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from starlette.routing import Route
from starlette.types import ASGIApp

import cacheproxy
from cacheproxy.admin.app import make_admin_app
from cacheproxy.admin.report import describe_chat_thresholds, describe_store, describe_thresholds
from cacheproxy.api.callers import Callers
from cacheproxy.api.dialects.embed import EmbedDialect
from cacheproxy.api.dialects.openai import OpenAIDialect
from cacheproxy.api.dialects.protocol import Dialect, InputLimits
from cacheproxy.api.edge import Edge
from cacheproxy.api.items_endpoint import EmbeddingsEndpoint
from cacheproxy.api.service import (
    healthz,
    metrics_endpoint,
    models_endpoint,
    readyz_endpoint,
)
from cacheproxy.concurrency.job_thread import JobThread
from cacheproxy.inference.batcher import Batcher
from cacheproxy.inference.engine import Engine, LocalEngine
from cacheproxy.inference.queue import TextQueue
from cacheproxy.inference.session import OnnxEncoder
from cacheproxy.inference.tokenizer import Tokenizer
from cacheproxy.keys import KEY_BYTES, Namespace
from cacheproxy.modelkit.install import InstalledModel
from cacheproxy.modelkit.probing import make_probe
from cacheproxy.probes.probe import Probe
from cacheproxy.probes.whole import WholeProbe
from cacheproxy.records import EmbeddingRecord, unpack
from cacheproxy.routes.exchange import ModelInfo
from cacheproxy.routes.items import EmbeddingPipeline
from cacheproxy.server.completions import ChatRoute
from cacheproxy.server.upstream_models import make_local_engine, upstream_models
from cacheproxy.settings.sections import Settings
from cacheproxy.stores.factory import make_store
from cacheproxy.stores.gauges import show_store
from cacheproxy.telemetry.history import MetricsSource, OwnMetrics
from cacheproxy.telemetry.journal import Journal
from cacheproxy.telemetry.metrics import Metrics
from cacheproxy.telemetry.recorder import Recorder
from cacheproxy.telemetry.tracing import start_tracing
from cacheproxy.thresholds.certified import CertifiedThresholds
from cacheproxy.thresholds.controller import Controller
from cacheproxy.thresholds.fixed import FixedThreshold
from cacheproxy.thresholds.promise import promise_of
from cacheproxy.thresholds.sharing import EvidenceSharing
from cacheproxy.tiers.exact import ExactTier
from cacheproxy.tiers.guard import StoreGuard
from cacheproxy.tiers.hot import HotTier
from cacheproxy.tiers.lifetime import Lifetimes
from cacheproxy.tiers.reader import RecordReader
from cacheproxy.tiers.semantic import SemanticTier
from cacheproxy.tiers.sparework import SpareWork
from cacheproxy.tiers.writeback import WriteBack
from cacheproxy.upstreams.embedding import UpstreamEngine
from cacheproxy.upstreams.fallback import Upstreams

_FLUSH_S = 10.0
"""Longest time for which the end of the process waits for write-backs."""

_CHECKS = 1_024
"""Semantic hits that may wait to be checked; where there are more, none is served that is to be."""

_WARM_UP_TOKENS = (3, 16, 64, 256)


class App:
    """A server's parts and their life."""

    def __init__(
        self,
        settings: Settings,
        installed: InstalledModel,
        all_metrics: MetricsSource | None = None,
    ) -> None:
        """Make the parts; `all_metrics` gives the metrics if there are other workers' to add."""
        self._settings = settings
        self.metrics = metrics = Metrics()
        self._own_metrics = OwnMetrics(metrics)
        self._all_metrics = all_metrics or self._own_metrics
        self._encoder = OnnxEncoder(installed.graph, device=installed.device)
        self._max_tokens = installed.max_tokens
        self._draining = False
        self._store = make_store(settings)
        self._guard = StoreGuard(
            self._store, deadline_s=settings.cache.deadline_ms / 1000, metrics=metrics
        )
        show_store(self._store, metrics)
        self._hot = HotTier[EmbeddingRecord](settings.cache.hot_bytes, self._store.purges)
        self._writeback = WriteBack(
            self._store, max_entries=settings.cache.writeback_entries, metrics=metrics
        )
        self._tokenizing = JobThread("cacheproxy-tokenize")
        batching = settings.batching
        metrics.batch_window.set(batching.window_ms / 1000)
        self._batcher = Batcher(
            self._encoder.encode,
            model=installed.name,
            threads=batching.threads,
            queue=TextQueue(
                window_s=batching.window_ms / 1000,
                max_group_tokens=batching.max_tokens,
                shared_group_tokens=batching.shared_tokens,
                timeout_s=batching.timeout_s,
                workers=batching.threads,
            ),
            max_wait_s=batching.max_wait_ms / 1000,
            metrics=metrics,
        )
        self._spare_work = SpareWork(self._batcher.has_spare, most=_CHECKS, metrics=metrics)
        self._thresholds: list[CertifiedThresholds] = []
        self._sharings: list[EvidenceSharing] = []
        self._upstreams = Upstreams(settings.all_upstreams, metrics)
        self._recorder = self._make_recorder()
        self._pipelines = self._make_pipelines(installed)
        metrics.build_info.info(
            {
                "version": cacheproxy.__version__,
                "model": installed.name,
                "fingerprint": installed.fingerprint,
                "device": installed.device,
            }
        )
        self._chat = self._make_chat(installed) if self._upstreams.have_chat else None
        hot_tiers: list[HotTier[Any]] = [self._hot, *([self._chat.hot] if self._chat else [])]
        metrics.hot_entries.set_function(lambda: sum(len(hot) for hot in hot_tiers))
        metrics.hot_bytes.set_function(lambda: sum(hot.size_bytes for hot in hot_tiers))
        spare_works = [self._spare_work, *([self._chat.spare_work] if self._chat else [])]
        metrics.semantic_checks_waiting.set_function(lambda: sum(map(len, spare_works)))
        self._tracer = start_tracing()
        self._edge = self._make_edge()
        self.asgi: ASGIApp = self._edge
        token = settings.admin.token
        self.admin_asgi = make_admin_app(
            self._store,
            lambda namespace_id, text: [
                pipeline.key_of_text(namespace_id, text) for pipeline in self._pipelines
            ],
            self._describe,
            self._describe_thresholds,
            self._all_metrics.recent,
            Journal(settings.log.requests),
            token=token.get_secret_value() if token else None,
        )

    def _make_pipelines(self, installed: InstalledModel) -> list[EmbeddingPipeline]:
        """Return the pipelines of the local model, and of those that upstreams have."""
        tokenizer = Tokenizer(installed.tokenizer_json, installed.max_tokens)
        engine, fingerprint = make_local_engine(
            LocalEngine(self._batcher, tokenizer), installed, self._upstreams
        )
        local = ModelInfo(
            name=installed.name,
            aliases=(*installed.aliases, *self._aliases(installed.name, *installed.aliases)),
            fingerprint=fingerprint,
            dimensions=installed.dimensions,
        )
        probe = make_probe(self._settings, installed)
        pipelines = [self._make_pipeline(local, tokenizer, engine, probe)]
        whole = WholeProbe(self._batcher)
        for model in upstream_models(self._upstreams, installed):
            model = replace(model, aliases=self._aliases(model.name))
            theirs = UpstreamEngine(self._upstreams, model.name, model.dimensions)
            pipelines.append(self._make_pipeline(model, tokenizer, theirs, whole))
        return pipelines

    def _aliases(self, *names: str) -> tuple[str, ...]:
        given = self._settings.model_aliases.items()
        return tuple(alias for alias, name in given if name in names)

    def _make_pipeline(
        self, model: ModelInfo, tokenizer: Tokenizer, engine: Engine, probe: Probe
    ) -> EmbeddingPipeline:
        settings, metrics = self._settings, self.metrics
        reader = RecordReader(partial(unpack, dimensions=model.dimensions), metrics)
        controller = self._make_controller(model.name)
        if isinstance(controller, CertifiedThresholds):
            self._thresholds.append(controller)
            fingerprint = f"{model.fingerprint}:{probe.name}"
            sharing = EvidenceSharing(self._store, controller, fingerprint=fingerprint)
            self._sharings.append(sharing)
        return EmbeddingPipeline(
            model,
            tokenizer=tokenizer,
            hot=self._hot,
            exact=ExactTier(self._guard, self._writeback, reader),
            semantic=SemanticTier(
                self._guard,
                probe,
                controller,
                reader=reader,
                fingerprint=model.fingerprint,
                min_tokens=settings.semantic.min_tokens,
                model=model.name,
                metrics=metrics,
            ),
            engine=engine,
            writeback=self._writeback,
            purges=self._store.purges,
            spare_work=self._spare_work,
            tokenizing=self._tokenizing,
            lifetimes=self._lifetimes(settings.cache.ttl_s),
            metrics=metrics,
        )

    def _make_chat(self, installed: InstalledModel) -> ChatRoute:
        return ChatRoute(
            self._settings,
            installed,
            self._upstreams,
            store=self._store,
            guard=self._guard,
            writeback=self._writeback,
            batcher=self._batcher,
            lifetimes=self._lifetimes(self._settings.chat.ttl_s),
            metrics=self.metrics,
            recorder=self._recorder,
        )

    def _lifetimes(self, default_s: float) -> Lifetimes:
        settings = self._settings
        return Lifetimes(
            default_s,
            by_namespace_id={
                Namespace(tenant, name).id: ttl_s
                for tenant, lives in settings.namespace_ttl_s.items()
                for name, ttl_s in lives.items()
            },
            jitter=settings.cache.ttl_jitter,
        )

    def _make_controller(self, model: str) -> Controller:
        semantic, mode = self._settings.semantic, self._settings.semantic_mode
        if mode == "off" or semantic.threshold is not None:
            return FixedThreshold(
                None if mode == "off" else semantic.threshold,
                min_similarity=semantic.min_similarity,
                model=model,
                metrics=self.metrics,
            )
        return CertifiedThresholds(
            promise_of(semantic),
            min_similarity=semantic.min_similarity,
            saves_only=mode == "auto",
            model=model,
            metrics=self.metrics,
        )

    def _make_recorder(self) -> Recorder | None:
        record = self._settings.record
        if record.path is None:
            return None
        return Recorder(
            record.path, with_texts=record.texts, max_bytes=record.max_bytes, metrics=self.metrics
        )

    def _make_edge(self) -> Edge:
        models = [pipeline.model for pipeline in self._pipelines]
        pipelines = {
            name: pipeline
            for pipeline in reversed(self._pipelines)
            for name in (pipeline.model.name, *pipeline.model.aliases)
        }
        limits = self._settings.limits
        callers = Callers(self._settings.api_keys)

        def embeddings(route: str, dialect: Dialect) -> EmbeddingsEndpoint:
            return EmbeddingsEndpoint(
                route,
                dialect,
                pipelines=pipelines,
                default_model=models[0].name,
                callers=callers,
                limits=InputLimits(limits.inputs, limits.characters),
                max_body_bytes=limits.body_bytes,
                body_timeout_s=limits.body_timeout_s,
                metrics=self.metrics,
                recorder=self._recorder,
            )

        chat = [] if self._chat is None else self._chat.routes(callers)
        openai = embeddings("embeddings", OpenAIDialect())
        return Edge(
            [
                *chat,
                Route("/v1/embeddings", openai, methods=["POST"]),
                Route("/embed", embeddings("embed", EmbedDialect()), methods=["POST"]),
                Route(
                    "/v1/models",
                    models_endpoint(models, self._upstreams.models(), time.time()),
                ),
                Route("/healthz", healthz),
                Route("/readyz", readyz_endpoint(self._not_ready_because)),
                Route("/metrics", metrics_endpoint(self._all_metrics.exposition)),
            ],
            Journal(self._settings.log.requests, self._tracer),
        )

    async def _describe(self) -> dict[str, Any]:
        settings, purges = self._settings, self._store.purges
        return {
            "version": cacheproxy.__version__,
            "models": [pipeline.model.name for pipeline in self._pipelines],
            "lookups": self.metrics.lookup_counts(),
            "hot": {"entries": len(self._hot), "size_bytes": self._hot.size_bytes},
            "purges": {"generation": purges.generation, "heard": purges.is_listening},
            "store": await describe_store(self._store, settings.store_kind, settings.api_keys),
            "semantic": self._describe_thresholds(),
        }

    def _describe_thresholds(self) -> dict[str, Any]:
        accounts = [account for one in self._thresholds for account in one.accounts()]
        described = describe_thresholds(self._settings, accounts)
        if self._chat is not None:
            described["chat"] = describe_chat_thresholds(self._settings, self._chat.accounts())
        return described

    def _not_ready_because(self) -> str | None:
        return "draining" if self._draining else None

    async def start(self) -> None:
        """Open the store and warm the model up; requests may come when it returns.

        Raises:
            StoreError: the store cannot be opened.
            ConfigError: requests cannot be recorded.
        """
        if self._recorder is not None:
            self._recorder.start()
        await self._store.open()
        await self._guard.get_many([bytes(KEY_BYTES)])  # any key: finds out whether it answers
        for tokens in _WARM_UP_TOKENS:
            self._encoder.encode(np.ones((1, min(tokens, self._max_tokens)), np.int64))
        self._upstreams.start()
        if self._chat is not None:
            self._chat.start()
        self._writeback.start()
        self._batcher.start()
        self._spare_work.start()
        for sharing in self._sharings:
            sharing.start()
        if self._settings.admin.port is not None and self._all_metrics is self._own_metrics:
            self._own_metrics.start()

    def drain(self) -> None:
        """Tell balancers, from now on, to send requests elsewhere."""
        self._draining = True
        self._edge.close_connections()

    async def stop(self) -> None:
        """Write what is still to be stored and release everything; no request may be in flight."""
        self._own_metrics.stop()
        await self._spare_work.stop()
        if self._chat is not None:
            await self._chat.stop()
        await self._upstreams.stop()
        self._batcher.stop()
        for sharing in self._sharings:
            await sharing.stop()
        await self._writeback.stop(_FLUSH_S)
        await self._guard.close()
        await self._store.close()
        if self._recorder is not None:
            self._recorder.stop()
        self._tokenizing.close()
        if self._tracer is not None:
            self._tracer.stop()
