"""Assembles the embedding routes: one for the local model, one for each model of upstreams."""

from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial

from cacheproxy.concurrency.job_thread import JobThread
from cacheproxy.inference.engine import Engine, LocalEngine
from cacheproxy.inference.inputs import InputReader, Role
from cacheproxy.inference.token_ids import TokenIds
from cacheproxy.inference.tokenizer import Tokenizer
from cacheproxy.modelkit.install import InstalledModel
from cacheproxy.modelkit.probing import make_probe
from cacheproxy.probes.probe import Probe
from cacheproxy.probes.whole import WholeProbe
from cacheproxy.records import EmbeddingRecord, pack, unpack
from cacheproxy.routes.exchange import ModelInfo
from cacheproxy.routes.form import EMBEDDINGS
from cacheproxy.routes.items import ItemsRoute
from cacheproxy.server.parts import Parts, SharedEvidence
from cacheproxy.server.upstream_models import make_local_engine, upstream_models
from cacheproxy.thresholds.certified import Account, CertifiedThresholds
from cacheproxy.thresholds.controller import Controller
from cacheproxy.thresholds.fixed import FixedThreshold
from cacheproxy.thresholds.promise import promise_of
from cacheproxy.tiers.hot import HotTier
from cacheproxy.tiers.reader import RecordReader
from cacheproxy.tiers.sparework import SpareWork
from cacheproxy.upstreams.embedding import UpstreamEngine

_CHECKS = 1_024
"""The most semantic hits that may wait for a check; further hits that need one become misses."""


class Embeddings:
    """The embedding routes and their shared parts.

    Attributes:
        routes: one for each model, the local one first.
        hot: their hot tier.
        spare_work: their background checks.
        readers: what reads the inputs for each model, by its name.
    """

    def __init__(self, parts: Parts, installed: InstalledModel) -> None:
        self._parts = parts
        self._thresholds: list[CertifiedThresholds] = []
        self._evidence = SharedEvidence(parts.store)
        self.hot = HotTier[EmbeddingRecord](parts.settings.cache.hot_bytes, parts.store.purges)
        self.spare_work = SpareWork(parts.batcher.has_spare, most=_CHECKS, metrics=parts.metrics)
        self._token_ids = JobThread("cacheproxy-token-ids")
        self.readers: dict[str, InputReader] = {}
        self.routes = self._make_routes(installed)

    def by_name(self) -> dict[str, ItemsRoute[EmbeddingRecord]]:
        """Return the routes by model name and alias; the first route that has a name gets it."""
        return {
            name: route
            for route in reversed(self.routes)
            for name in (route.model.name, *route.model.aliases)
        }

    def keys_of_text(self, namespace_id: str, text: str) -> list[bytes]:
        """Return the keys of a text's entries, one for each model."""
        return [route.key_of_text(namespace_id, text) for route in self.routes]

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

    def _make_routes(self, installed: InstalledModel) -> list[ItemsRoute[EmbeddingRecord]]:
        parts = self._parts
        tokenizer = Tokenizer(installed.tokenizer_json, installed.max_tokens)
        local_engine = LocalEngine(parts.batcher, tokenizer)
        engine, fingerprint = make_local_engine(local_engine, installed, tokenizer, parts.upstreams)
        local = ModelInfo(
            name=installed.name,
            aliases=(*installed.aliases, *self._aliases(installed.name, *installed.aliases)),
            fingerprint=fingerprint,
            dimensions=installed.dimensions,
            matryoshka=installed.matryoshka,
            max_tokens=installed.max_tokens,
        )
        self.readers[local.name] = self._make_reader(installed, tokenizer)
        probe = make_probe(parts.settings, installed)
        routes = [self._make_route(local, tokenizer, engine, probe)]
        whole = WholeProbe(parts.batcher)
        for model in upstream_models(parts.upstreams, installed):
            model = replace(model, aliases=self._aliases(model.name))
            theirs = UpstreamEngine(parts.upstreams, model.name, model.dimensions, tokenizer)
            routes.append(self._make_route(model, tokenizer, theirs, whole))
            self.readers[model.name] = InputReader()
        return routes

    def _make_reader(self, installed: InstalledModel, tokenizer: Tokenizer) -> InputReader:
        vocabulary = self._parts.settings.embeddings.token_ids
        token_ids = TokenIds(
            tokenizer, self._token_ids, None if vocabulary == "auto" else vocabulary
        )
        prefixes = installed.prefixes
        by_role: dict[Role, str] = {"query": prefixes.query, "document": prefixes.document}
        return InputReader(by_role if any(by_role.values()) else {}, token_ids)

    def _aliases(self, *names: str) -> tuple[str, ...]:
        given = self._parts.settings.model_aliases.items()
        return tuple(alias for alias, name in given if name in names)

    def _make_route(
        self, model: ModelInfo, tokenizer: Tokenizer, engine: Engine, probe: Probe
    ) -> ItemsRoute[EmbeddingRecord]:
        parts = self._parts
        reader = RecordReader(partial(unpack, dimensions=model.dimensions), parts.metrics)
        controller = self._make_controller(model.name)
        if isinstance(controller, CertifiedThresholds):
            self._thresholds.append(controller)
            self._evidence.add(controller, f"{model.fingerprint}:{probe.name}")
        return ItemsRoute(
            model,
            EMBEDDINGS,
            tokenizer=tokenizer,
            tiers=parts.keyed_tiers(self.hot, reader),
            semantic=parts.semantic_tier(model.name, model.fingerprint, probe, controller, reader),
            engine=engine,
            keeper=parts.keeper(self.hot, pack),
            purges=parts.store.purges,
            spare_work=self.spare_work,
            tokenizing=parts.tokenizing,
            lifetimes=parts.lifetimes(parts.settings.cache.ttl_s),
            metrics=parts.metrics,
        )

    def _make_controller(self, model: str) -> Controller:
        settings, metrics = self._parts.settings, self._parts.metrics
        semantic, mode = settings.semantic, settings.semantic_mode
        if mode == "off" or semantic.threshold is not None:
            return FixedThreshold(
                None if mode == "off" else semantic.threshold,
                min_similarity=semantic.min_similarity,
                model=model,
                metrics=metrics,
            )
        return CertifiedThresholds(
            promise_of(semantic),
            min_similarity=semantic.min_similarity,
            saves_only=mode == "auto",
            model=model,
            metrics=metrics,
        )
