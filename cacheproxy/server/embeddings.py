"""Assembles the embedding routes: one for each local model, and for each model of upstreams."""

from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial

from cacheproxy.concurrency.job_thread import JobThread
from cacheproxy.inference.engine import Engine
from cacheproxy.inference.inputs import InputReader, Role
from cacheproxy.inference.token_ids import TokenIds
from cacheproxy.probes.probe import Probe
from cacheproxy.probes.whole import WholeProbe
from cacheproxy.records import EmbeddingRecord, pack, unpack
from cacheproxy.routes.exchange import ModelInfo
from cacheproxy.routes.form import EMBEDDINGS
from cacheproxy.routes.items import ItemsRoute
from cacheproxy.server.local_models import LocalModel
from cacheproxy.server.parts import Parts, SharedEvidence
from cacheproxy.server.upstream_models import make_local_engine, upstream_models
from cacheproxy.settings.settings import Settings
from cacheproxy.thresholds.certified import Account, CertifiedThresholds
from cacheproxy.thresholds.controller import Controller
from cacheproxy.thresholds.fixed import FixedThreshold
from cacheproxy.thresholds.promise import promise_of
from cacheproxy.tiers.reader import RecordReader
from cacheproxy.tiers.sparework import SpareWork
from cacheproxy.upstreams.embedding import UpstreamEngine

_CHECKS = 1_024
"""The most semantic hits that may wait for a check; further hits that need one become misses."""


class Embeddings:
    """The embedding routes and their shared parts.

    Attributes:
        routes: one for each model, local ones first, and of those the default one.
        spare_work: their background checks.
        readers: what reads the inputs for each model, by its name.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._thresholds: list[CertifiedThresholds] = []
        self._evidence = SharedEvidence(parts.store)
        self.spare_work = SpareWork(parts.threads.has_spare, most=_CHECKS, metrics=parts.metrics)
        self._token_ids = JobThread("cacheproxy-token-ids")
        self.readers: dict[str, InputReader] = {}
        self.routes = [*map(self._make_local_route, parts.models), *self._make_upstream_routes()]

    @property
    def waiting(self) -> int:
        """Semantic hits that wait for their check."""
        return len(self.spare_work)

    def accounts(self) -> list[Account]:
        """Return the standings of each model's namespaces."""
        return [account for one in self._thresholds for account in one.accounts()]

    def start(self, running: AsyncExitStack) -> None:
        """Start background work; `running` stops it."""
        running.callback(self._token_ids.close)
        self._evidence.start()
        running.push_async_callback(self._evidence.stop)
        self.spare_work.start()
        running.push_async_callback(self.spare_work.stop)

    def _make_local_route(self, local: LocalModel) -> ItemsRoute[EmbeddingRecord]:
        installed = local.installed
        engine, fingerprint = make_local_engine(local, self._parts.upstreams)
        model = ModelInfo(
            name=installed.name,
            aliases=(*installed.aliases, *self._parts.settings.aliases_of(*local.names)),
            fingerprint=fingerprint,
            dimensions=installed.dimensions,
            matryoshka=installed.matryoshka,
            max_tokens=installed.max_tokens,
        )
        self.readers[model.name] = self._make_reader(local)
        return self._make_route(model, engine, local.probe)

    def _make_upstream_routes(self) -> Iterator[ItemsRoute[EmbeddingRecord]]:
        """Yield routes of models that only upstreams serve; their probe is the default model."""
        upstreams, default = self._parts.upstreams, self._parts.models[0]
        whole = WholeProbe(default.batcher)
        for model in upstream_models(upstreams, self._parts.models):
            model = replace(model, aliases=self._parts.settings.aliases_of(model.name))
            self.readers[model.name] = InputReader()
            engine = UpstreamEngine(upstreams, model.name, model.dimensions, default.tokenizer)
            yield self._make_route(model, engine, whole)

    def _make_reader(self, local: LocalModel) -> InputReader:
        vocabulary = self._parts.settings.embeddings.token_ids
        token_ids = TokenIds(
            local.tokenizer, self._token_ids, None if vocabulary == "auto" else vocabulary
        )
        prefixes = local.installed.prefixes
        by_role: dict[Role, str] = {"query": prefixes.query, "document": prefixes.document}
        return InputReader(by_role if any(by_role.values()) else {}, token_ids)

    def _make_route(
        self, model: ModelInfo, engine: Engine, probe: Probe
    ) -> ItemsRoute[EmbeddingRecord]:
        parts = self._parts
        reader = RecordReader(partial(unpack, dimensions=model.dimensions), parts.metrics)
        controllers = _Controllers(
            parts, model.name, partial(self._earn, f"{model.fingerprint}:{probe.name}")
        )
        semantic = parts.semantic_tier(
            model.name, model.fingerprint, probe, controllers.of(parts.settings), reader
        )
        parts.reloading.take_by(lambda settings: semantic.steer_by(controllers.of(settings)))
        return ItemsRoute(
            model,
            EMBEDDINGS,
            tiers=parts.keyed_tiers(parts.hot, reader),
            semantic=semantic,
            engine=engine,
            keeper=parts.keeper(parts.hot, pack),
            purges=parts.store.purges,
            spare_work=self.spare_work,
            tokenizing=parts.tokenizing,
            lifetimes=parts.lifetimes(lambda settings: settings.cache.ttl_s),
            metrics=parts.metrics,
            meters=parts.meters,
            seats=parts.seats if model.is_local else None,
        )

    def _earn(self, fingerprint: str, thresholds: CertifiedThresholds) -> None:
        """Share the evidence of thresholds that have to be earned, from now on."""
        self._thresholds.append(thresholds)
        self._evidence.add(thresholds, fingerprint)


class _Controllers:
    """What may decide for one model: earned thresholds, an operator's own, or nothing.

    Earned ones are made when they are first wanted. They keep their evidence while another
    controller decides, and learn nothing then.
    """

    def __init__(
        self, parts: Parts, model: str, earn: Callable[[CertifiedThresholds], None]
    ) -> None:
        """Prepare; `earn` is called with earned thresholds when they are made."""
        self._parts = parts
        self._model = model
        self._earn = earn
        self._earned: CertifiedThresholds | None = None
        self._fixed: FixedThreshold | None = None

    def of(self, settings: Settings) -> Controller:
        """Return what decides by these settings."""
        semantic = settings.semantic
        if semantic.mode == "off" or semantic.threshold is not None:
            if self._earned is not None:
                self._earned.hide()
            if self._fixed is None:
                self._fixed = FixedThreshold(
                    None,
                    min_similarity=semantic.min_similarity,
                    model=self._model,
                    metrics=self._parts.metrics,
                )
            self._fixed.threshold = None if semantic.mode == "off" else semantic.threshold
            return self._fixed
        promise, saves_only = promise_of(semantic), semantic.mode == "auto"
        if self._earned is None:
            self._earned = CertifiedThresholds(
                promise,
                min_similarity=semantic.min_similarity,
                saves_only=saves_only,
                terms=self._parts.tenants.namespace_terms,
                model=self._model,
                metrics=self._parts.metrics,
            )
            self._earn(self._earned)
        self._earned.promise_anew(promise, saves_only=saves_only)
        return self._earned
