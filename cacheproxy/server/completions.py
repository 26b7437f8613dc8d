"""Puts the completions route together: one for the models of all upstreams."""

from collections.abc import Sequence
from contextlib import AsyncExitStack

import numpy as np
from numpy.typing import NDArray

from cacheproxy.errors import ConfigError
from cacheproxy.inference.tokenizer import Tokenizer
from cacheproxy.keys import Namespace
from cacheproxy.modelkit.install import InstalledModel
from cacheproxy.probes.whole import WholeProbe
from cacheproxy.routes.chat.agreement import Comparer
from cacheproxy.routes.chat.budget import Budget
from cacheproxy.routes.chat.judge import Judge
from cacheproxy.routes.chat.learning import Learning
from cacheproxy.routes.chat.likeness import AGREES, Likeness, promise_of_chat
from cacheproxy.routes.chat.models import ChatModels
from cacheproxy.routes.chat.record import CompletionRecord, pack, unpack
from cacheproxy.routes.chat.refresh import Refresh
from cacheproxy.routes.chat.staleness import Staleness, StalenessRules
from cacheproxy.routes.chat.upstream_calls import UpstreamCalls
from cacheproxy.routes.completions import CompletionsRoute
from cacheproxy.routes.dialects.chat import ChatDialect
from cacheproxy.routes.dialects.dialect import Dialect
from cacheproxy.routes.dialects.legacy import LegacyDialect
from cacheproxy.routes.dialects.messages import MessagesDialect
from cacheproxy.routes.dialects.responses import ResponsesDialect
from cacheproxy.server.parts import Parts, SharedEvidence
from cacheproxy.settings.sections import Settings
from cacheproxy.thresholds.certified import Account, CertifiedThresholds
from cacheproxy.tiers.hot import HotTier
from cacheproxy.tiers.reader import RecordReader
from cacheproxy.tiers.sparework import SpareWork
from cacheproxy.upstreams.fallback import Upstreams

DIALECTS: tuple[Dialect, ...] = (
    ChatDialect(),
    ResponsesDialect(),
    MessagesDialect(),
    LegacyDialect(),
)
"""The APIs in which completions are asked for, the busiest first."""

_REST_S = 0.015
"""Pause between two answers that are learned from, some 5 ms of work each: a quarter of a core."""

_LABELS = 1_024
"""Fresh answers that may wait to be learned from; beyond that they are not."""


class Completions:
    """The completions route and what belongs to it alone.

    Attributes:
        route: the way of the requests.
        models: what is known of models.
        learning: takes reports of wrong hits.
        hot: the hot tier.
        spare_work: what is learned behind the answers.
    """

    def __init__(self, parts: Parts, installed: InstalledModel) -> None:
        settings, store, upstreams = parts.settings, parts.store, parts.upstreams
        self._parts = parts
        self._installed = installed
        self._tokenizer = Tokenizer(installed.tokenizer_json, installed.max_tokens)
        self._probe = WholeProbe(parts.batcher)
        self._reader = RecordReader(unpack, parts.metrics)
        self._comparer = Comparer(self._embed)
        self._judge = _judge(settings, upstreams)
        self._thresholds: dict[str, CertifiedThresholds] = {}
        self._evidence = SharedEvidence(store)
        self.spare_work = SpareWork(
            parts.batcher.has_spare, most=_LABELS, metrics=parts.metrics, rest_s=_REST_S
        )
        self.hot = HotTier[CompletionRecord](settings.chat.hot_bytes, store.purges)
        is_on = settings.chat.semantic == "on" and not settings.is_cluster
        self.models = ChatModels(upstreams.models(), self._make_likeness if is_on else None)
        tiers = parts.keyed_tiers(self.hot, self._reader)
        staleness = _staleness(settings)
        budget = Budget(settings.chat.checks_per_minute)
        self.learning = Learning(
            self.models,
            parts.keeper(self.hot, pack),
            tiers=tiers,
            lifetimes=parts.lifetimes(settings.chat.ttl_s),
            staleness=staleness,
            spare_work=self.spare_work,
            budget=budget,
            purge=store.purge,
            metrics=parts.metrics,
        )
        calls = UpstreamCalls(
            upstreams,
            store.purges,
            self.learning.keep,
            most_bytes=settings.chat.max_answer_bytes,
            dialects={dialect.name: dialect for dialect in DIALECTS},
            metrics=parts.metrics,
        )
        self._refresh = Refresh(calls, budget, self.hot)
        self.route = CompletionsRoute(
            self.models,
            calls,
            self._refresh,
            tiers=tiers,
            purges=store.purges,
            staleness=staleness,
            metrics=parts.metrics,
        )

    def accounts(self) -> dict[str, list[Account]]:
        """Return where the namespaces of each model stand."""
        return {model: list(one.accounts()) for model, one in self._thresholds.items()}

    def start(self, running: AsyncExitStack) -> None:
        """Start to learn in the background; `running` stops it and shares what was learned."""
        self._evidence.start()
        running.push_async_callback(self._evidence.stop)
        self.spare_work.start()
        running.push_async_callback(self.spare_work.stop)
        running.push_async_callback(self.learning.stop)
        running.push_async_callback(self._refresh.stop)

    def _make_likeness(self, model: str) -> Likeness:
        """Return the semantic tier of a model that an upstream has answered for."""
        parts = self._parts
        first = parts.upstreams.first(model)
        who = "" if first is None else first.base_url
        fingerprint = f"chat:{who}:{self._installed.fingerprint}"
        thresholds = CertifiedThresholds(
            promise_of_chat(parts.settings.chat),
            min_similarity=AGREES,
            saves_only=False,
            model=model,
            metrics=parts.metrics,
        )
        self._evidence.add(thresholds, f"{fingerprint}:{self._probe.name}:{model}")
        self._thresholds[model] = thresholds
        tier = parts.semantic_tier(
            model, fingerprint, self._probe, thresholds, self._reader, checks_repeats=False
        )
        return Likeness(tier, thresholds, self._tokenizer, self._comparer, self._judge)

    async def _embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return await self._probe.encode(self._tokenizer.encode(texts))


def _judge(settings: Settings, upstreams: Upstreams) -> Judge | None:
    model = settings.chat.judge_model
    if model is None:
        return None
    if upstreams.first(model) is None:
        raise ConfigError(f"chat.judge_model: no upstream has {model}")
    return Judge(upstreams, model)


def _staleness(settings: Settings) -> StalenessRules:
    chat = settings.chat
    return StalenessRules(
        Staleness(chat.stale_while_revalidate_s, chat.stale_if_error_s),
        {
            Namespace(tenant, name).id: Staleness(given.while_revalidate, given.if_error)
            for tenant, names in settings.namespace_stale_s.items()
            for name, given in names.items()
        },
    )
