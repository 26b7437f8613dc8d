"""Puts the chat route's parts together, beside the embedding route's, with which it shares some."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from starlette.routing import Route

from cacheproxy.api.callers import Callers
from cacheproxy.api.completions_endpoint import ChatEndpoint
from cacheproxy.api.report import ReportEndpoint
from cacheproxy.errors import ConfigError
from cacheproxy.inference.batcher import Batcher
from cacheproxy.inference.tokenizer import Tokenizer
from cacheproxy.keys import Namespace
from cacheproxy.modelkit.install import InstalledModel
from cacheproxy.probes.whole import WholeProbe
from cacheproxy.routes.chat.agreement import Comparer
from cacheproxy.routes.chat.budget import Budget
from cacheproxy.routes.chat.judge import Judge
from cacheproxy.routes.chat.keeping import Keeping
from cacheproxy.routes.chat.likeness import AGREES, Likeness, promise_of_chat
from cacheproxy.routes.chat.models import ChatModels
from cacheproxy.routes.chat.record import CompletionRecord, unpack
from cacheproxy.routes.chat.savings import Savings
from cacheproxy.routes.chat.staleness import Staleness, StalenessRules
from cacheproxy.routes.completions import ChatPipeline
from cacheproxy.settings.sections import Settings
from cacheproxy.stores.protocol import Store
from cacheproxy.telemetry.metrics import Metrics
from cacheproxy.telemetry.recorder import Recorder
from cacheproxy.thresholds.certified import Account, CertifiedThresholds
from cacheproxy.thresholds.sharing import EvidenceSharing
from cacheproxy.tiers.exact import ExactTier
from cacheproxy.tiers.guard import StoreGuard
from cacheproxy.tiers.hot import HotTier
from cacheproxy.tiers.lifetime import Lifetimes
from cacheproxy.tiers.reader import RecordReader
from cacheproxy.tiers.semantic import SemanticTier
from cacheproxy.tiers.sparework import SpareWork
from cacheproxy.tiers.writeback import WriteBack
from cacheproxy.upstreams.fallback import Upstreams

_REST_S = 0.015
"""Between two answers that are learned from, some 5 ms of work each: a quarter of a core."""

_LABELS = 1_024
"""Fresh answers that may wait to be compared; those beyond are not."""


class ChatRoute:
    """The chat route's parts and their life."""

    def __init__(
        self,
        settings: Settings,
        installed: InstalledModel,
        upstreams: Upstreams,
        *,
        store: Store,
        guard: StoreGuard,
        writeback: WriteBack,
        batcher: Batcher,
        lifetimes: Lifetimes,
        metrics: Metrics,
        recorder: Recorder | None,
    ) -> None:
        self._recorder = recorder
        self._settings = settings
        self._installed = installed
        self._upstreams = upstreams
        self._store = store
        self._guard = guard
        self._metrics = metrics
        self._tokenizer = Tokenizer(installed.tokenizer_json, installed.max_tokens)
        self._probe = WholeProbe(batcher)
        self._reader = RecordReader(unpack, metrics)
        self._comparer = Comparer(self._embed)
        self._sharings: list[EvidenceSharing] = []
        self._thresholds: dict[str, CertifiedThresholds] = {}
        self.spare_work = SpareWork(
            batcher.has_spare, most=_LABELS, metrics=metrics, rest_s=_REST_S
        )
        self.hot = HotTier[CompletionRecord](settings.chat.hot_bytes, store.purges)
        is_on = settings.chat.semantic == "on" and not settings.is_cluster
        self._models = ChatModels(upstreams.models(), self._make_likeness if is_on else None)
        staleness = _staleness(settings)
        budget = Budget(settings.chat.checks_per_minute)
        self._judge = _judge(settings, upstreams)
        keeping = Keeping(
            self._models,
            hot=self.hot,
            writeback=writeback,
            lifetimes=lifetimes,
            staleness=staleness,
            spare_work=self.spare_work,
            budget=budget,
            purge=store.purge,
        )
        self._pipeline = ChatPipeline(
            upstreams,
            self._models,
            keeping,
            hot=self.hot,
            exact=ExactTier(guard, writeback, self._reader),
            purges=store.purges,
            staleness=staleness,
            budget=budget,
            most_bytes=settings.chat.max_answer_bytes,
            metrics=metrics,
        )

    def routes(self, callers: Callers) -> list[Route]:
        """Return the route's endpoints."""
        settings = self._settings
        chat = ChatEndpoint(
            self._pipeline,
            self._models,
            Savings(settings.prices, self._metrics),
            callers=callers,
            max_temperature=settings.chat.max_temperature,
            max_body_bytes=settings.limits.chat_body_bytes,
            body_timeout_s=settings.limits.body_timeout_s,
            metrics=self._metrics,
            recorder=self._recorder,
        )
        report = ReportEndpoint(self._pipeline, callers, settings.limits.body_timeout_s)
        return [
            Route("/v1/chat/completions", chat, methods=["POST"]),
            Route("/v1/cache/report", report, methods=["POST"]),
        ]

    def accounts(self) -> dict[str, list[Account]]:
        """Return how each model's namespaces stand."""
        return {model: list(one.accounts()) for model, one in self._thresholds.items()}

    def start(self) -> None:
        """Begin to learn in the background of the running event loop."""
        self.spare_work.start()

    async def stop(self) -> None:
        """Share what was learned, and stop."""
        await self._pipeline.stop()
        await self.spare_work.stop()
        for sharing in self._sharings:
            await sharing.stop()

    def _make_likeness(self, model: str) -> Likeness:
        """Return the semantic tier of a model that an upstream has; the event loop runs."""
        first = self._upstreams.first(model)
        who = "" if first is None else first.base_url
        fingerprint = f"chat:{who}:{self._installed.fingerprint}"
        thresholds = CertifiedThresholds(
            promise_of_chat(self._settings.chat),
            min_similarity=AGREES,
            saves_only=False,
            model=model,
            metrics=self._metrics,
        )
        sharing = EvidenceSharing(
            self._store, thresholds, fingerprint=f"{fingerprint}:{self._probe.name}:{model}"
        )
        sharing.start()
        self._sharings.append(sharing)
        self._thresholds[model] = thresholds
        tier = SemanticTier(
            self._guard,
            self._probe,
            thresholds,
            reader=self._reader,
            fingerprint=fingerprint,
            min_tokens=self._settings.semantic.min_tokens,
            checks_repeats=False,
            model=model,
            metrics=self._metrics,
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
