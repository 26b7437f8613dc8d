"""Assembles the rerank routes: one for each local reranker, and for each reranker of upstreams."""

from collections.abc import Iterator

from cacheproxy.errors import ConfigError
from cacheproxy.inference.engine import Engine, LocalEngine
from cacheproxy.routes.exchange import ModelInfo
from cacheproxy.routes.items import ItemsRoute
from cacheproxy.routes.scores import SCORES, ScoreRecord, pack, unpack
from cacheproxy.server.fingerprints import upstream_fingerprint
from cacheproxy.server.local_models import LocalReranker
from cacheproxy.server.parts import Parts
from cacheproxy.tiers.reader import RecordReader
from cacheproxy.tiers.sparework import SpareWork
from cacheproxy.upstreams.reranking import UpstreamReranker


class Reranking:
    """The rerank routes.

    Attributes:
        routes: one for each model, local ones first; the first is the default one.
    """

    def __init__(self, parts: Parts, spare_work: SpareWork) -> None:
        """Assemble the routes.

        Raises:
            ConfigError: an upstream's reranker has the name of a local one.
        """
        self._parts = parts
        self._spare_work = spare_work
        self._reader = RecordReader(unpack, parts.metrics)
        self.routes = [*map(self._local_route, parts.rerankers), *self._upstream_routes()]

    def _local_route(self, local: LocalReranker) -> ItemsRoute[ScoreRecord]:
        installed = local.installed
        model = ModelInfo(
            name=installed.name,
            aliases=(*installed.aliases, *self._parts.settings.aliases_of(*local.names)),
            fingerprint=installed.fingerprint,
            dimensions=1,
            max_tokens=installed.max_tokens,
        )
        return self._route(model, LocalEngine(local.batcher, local.tokenizer))

    def _upstream_routes(self) -> Iterator[ItemsRoute[ScoreRecord]]:
        upstreams = self._parts.upstreams
        local = {name for model in self._parts.rerankers for name in model.names}
        for name, first in upstreams.rerankers().items():
            if name in local:
                # Scores of the two would differ, so that neither can stand in for the other.
                raise ConfigError(f"upstreams: the reranker {name} is served by this process")
            fingerprint = upstream_fingerprint(first.base_url, name, "rerank")
            model = ModelInfo(name, self._parts.settings.aliases_of(name), fingerprint, 1)
            yield self._route(model, UpstreamReranker(upstreams, name))

    def _route(self, model: ModelInfo, engine: Engine) -> ItemsRoute[ScoreRecord]:
        parts = self._parts
        return ItemsRoute(
            model,
            SCORES,
            tiers=parts.keyed_tiers(parts.hot, self._reader),
            semantic=None,
            engine=engine,
            keeper=parts.keeper(parts.hot, pack),
            purges=parts.store.purges,
            spare_work=self._spare_work,
            tokenizing=parts.tokenizing,
            lifetimes=parts.lifetimes(lambda settings: settings.cache.ttl_s),
            metrics=parts.metrics,
            meters=parts.meters,
            seats=parts.seats if model.is_local else None,
        )
