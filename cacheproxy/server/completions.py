"""Assembles the completions route, which serves the models of all upstreams."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cacheproxy.admin.reloading import Commit, Reloading
from cacheproxy.errors import ConfigError
from cacheproxy.keys import Namespace
from cacheproxy.probes.whole import WholeProbe
from cacheproxy.routes.chat.learning import Learning
from cacheproxy.routes.chat.likeness import Likeness
from cacheproxy.routes.chat.models import ChatModels, ModelLikeness
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
from cacheproxy.routes.judging.agreement import SENSITIVITY, Comparer
from cacheproxy.routes.judging.budget import Budget
from cacheproxy.routes.judging.costs import Costs
from cacheproxy.routes.judging.evidence import Evidence
from cacheproxy.routes.judging.fresh import FreshAnswers
from cacheproxy.routes.judging.hard_pairs import load_hard_pairs
from cacheproxy.routes.judging.judge import Judge
from cacheproxy.server.fingerprints import chat_evidence, chat_fingerprint, judge_of
from cacheproxy.server.parts import Parts, SharedEvidence
from cacheproxy.settings.sections import UpstreamSettings
from cacheproxy.settings.settings import Settings
from cacheproxy.thresholds.judged.allowance import Allowance
from cacheproxy.thresholds.judged.limits import Sensitivity
from cacheproxy.thresholds.judged.namespaces import JudgedNamespaces, ModelAccount
from cacheproxy.thresholds.judged.question_pair import rarity_of
from cacheproxy.tiers.hot import HotTier
from cacheproxy.tiers.reader import RecordReader
from cacheproxy.tiers.sparework import SpareWork

DIALECTS: tuple[Dialect, ...] = (
    ChatDialect(),
    ResponsesDialect(),
    MessagesDialect(),
    LegacyDialect(),
)
"""The APIs for completions, the busiest first."""

_BY_NAME = {dialect.name: dialect for dialect in DIALECTS}

_REST_S = 0.002
"""Pause between two answers that are learned from, some 5 ms of work each."""

_LABELS = 4_096
"""Fresh answers that may wait to be learned from; beyond that they are not."""


class Completions:
    """The completions route and the parts that only it uses; the default model is its probe.

    Attributes:
        route: handles the requests.
        models: the known models and their state.
        learning: receives reports of wrong hits.
        hot: the hot tier.
        spare_work: learning in the background.
    """

    def __init__(self, parts: Parts) -> None:
        settings, store, upstreams = parts.settings, parts.store, parts.upstreams
        self._parts = parts
        self._local = local = parts.models[0]
        self._tokenizer = local.tokenizer
        self._probe = WholeProbe(local.batcher)
        self._reader = RecordReader(unpack, parts.metrics)
        self._comparer = Comparer(self._embed)
        self._rarity = rarity_of(self._tokenizer.vocabulary())
        self._tiers: dict[str, tuple[str, Likeness]] = {}
        self._earned: dict[str, _Earned] = {}
        self._hard_pairs = load_hard_pairs()
        _check_judge(settings, settings.all_upstreams)
        self._evidence = SharedEvidence(store)
        self.spare_work = SpareWork(
            parts.threads.has_spare, most=_LABELS, metrics=parts.metrics, rest_s=_REST_S
        )
        self.hot = HotTier[CompletionRecord](
            settings.chat.hot_bytes, store.purges, terms=parts.tenants.hot_terms
        )
        is_on = settings.chat.semantic == "on"
        self.models = ChatModels(upstreams.models(), self._make_likeness if is_on else None)
        tiers = parts.keyed_tiers(self.hot, self._reader)
        staleness = _staleness(parts.reloading)
        self._budget = Budget(settings.chat.judge_requests_per_minute)
        self.learning = Learning(
            self.models,
            parts.keeper(self.hot, pack),
            tiers=tiers,
            lifetimes=parts.lifetimes(lambda settings: settings.chat.ttl_s),
            staleness=staleness,
            spare_work=self.spare_work,
            purge=store.purge,
            metrics=parts.metrics,
            wrong_hits=parts.wrong_hits,
        )
        calls = UpstreamCalls(
            upstreams,
            store.purges,
            self.learning.keep,
            most_bytes=settings.chat.max_answer_bytes,
            dialects=_BY_NAME,
            metrics=parts.metrics,
            meters=parts.meters,
        )
        self._refresh = Refresh(calls, self.hot)
        self.route = CompletionsRoute(
            self.models,
            calls,
            self.learning,
            self._refresh,
            tiers=tiers,
            purges=store.purges,
            staleness=staleness,
            caches_tools=_caches_tools(parts.reloading),
            metrics=parts.metrics,
        )
        parts.reloading.prepare_by(self._prepare)

    @property
    def waiting(self) -> int:
        """Answers and hits that wait to be learned from, those under way included."""
        judged = sum(len(one.evidence or ()) for one in self.models.likenesses())
        return len(self.spare_work) + judged

    def key_of(self, namespace_id: str, api: str, body: bytes) -> bytes:
        """Return the key of a request's entry; `api` names its dialect.

        Raises:
            BadRequest: the body is no request, or has no entry that all callers share.
        """
        most = self._parts.settings.chat.max_temperature
        return self.route.key_of(namespace_id, _BY_NAME[api].parse(body, max_temperature=most))

    def accounts(self) -> dict[str, ModelAccount]:
        """Return the judging costs of each model, and the standings of its namespaces."""
        return {
            model: ModelAccount(
                one.judge, one.namespaces.allowance, list(one.namespaces.accounts())
            )
            for model, one in self._earned.items()
            if (likeness := self.models.likeness_of(model)) and likeness.evidence is one.evidence
        }

    def start(self, running: AsyncExitStack) -> None:
        """Start background learning; `running` stops it and shares what was learned."""
        self._evidence.start()
        running.push_async_callback(self._evidence.stop)
        self.spare_work.start()
        running.push_async_callback(self.spare_work.stop)
        running.push_async_callback(self.learning.stop)
        running.push_async_callback(self._refresh.stop)

    def _prepare(self, settings: Settings) -> Commit:
        """Prepare for new settings, after the upstreams; raises ConfigError."""
        _check_judge(settings, settings.all_upstreams)

        def commit() -> None:
            chat = settings.chat
            self._budget.per_minute = chat.judge_requests_per_minute
            for one in self._earned.values():
                one.namespaces.allowance.set_shares(chat.learning_share, chat.open_share)
                one.namespaces.promise_anew(chat.max_error, chat.confidence)
                one.costs.reprice(settings.prices)
                if chat.threshold is not None or chat.semantic == "off":
                    one.namespaces.hide()
            self.models.renew(
                self._parts.upstreams.models(),
                self._make_likeness if chat.semantic == "on" else None,
            )

        return commit

    def _make_likeness(self, model: str) -> ModelLikeness:
        """Return the semantic tier of a model for which an upstream has answered.

        It is made anew when the settings change, with all of the former one that still holds.
        """
        parts, chat = self._parts, self._parts.settings.chat
        first = parts.upstreams.first(model)
        fingerprint = chat_fingerprint(
            "" if first is None else first.base_url, self._local.installed
        )
        earned = self._earn(model, fingerprint) if chat.threshold is None else None
        namespaces = None if earned is None else earned.namespaces
        known = self._tiers.get(model)
        if known is not None and known[0] == fingerprint:
            tier = known[1]
            tier.steer_by(namespaces, chat.threshold)
        else:
            tier = Likeness(
                parts.guard,
                self._probe,
                self._tokenizer,
                self._reader,
                self._rarity,
                namespaces=namespaces,
                threshold=chat.threshold,
                fingerprint=fingerprint,
                min_tokens=parts.settings.semantic.min_tokens,
                model=model,
                metrics=parts.metrics,
            )
            self._tiers[model] = fingerprint, tier
        if earned is not None:
            return ModelLikeness(tier, earned.evidence, earned.costs)
        return ModelLikeness(tier, None, Costs(parts.settings.prices, (model,)))

    def _earn(self, model: str, fingerprint: str) -> "_Earned":
        """Return how a model's thresholds are earned, which goes on while nothing else judges."""
        parts, chat = self._parts, self._parts.settings.chat
        judge = judge_of(model, chat.judge, parts.upstreams)
        name = chat_evidence(f"{fingerprint}:{self._probe.name}", model, judge)
        known = self._earned.get(model)
        if known is not None:
            if known.name == name:
                return known
            known.namespaces.hide()
            self._evidence.remove(known.namespaces)
        costs = Costs(parts.settings.prices, (model,) if judge is None else (model, judge))
        namespaces = JudgedNamespaces(
            Allowance(chat.learning_share, chat.open_share),
            max_error=chat.max_error,
            confidence=chat.confidence,
            assumed=Sensitivity(SENSITIVITY, SENSITIVITY) if judge is None else None,
            terms=parts.tenants.namespace_terms,
            is_pooled=chat.pool_scores == "on",
            model=model,
            metrics=parts.metrics,
            now=time.time,
        )
        self._evidence.add(namespaces, name)
        evidence = Evidence(
            namespaces,
            self._comparer,
            None if judge is None else Judge(parts.upstreams, judge, costs),
            FreshAnswers(parts.upstreams, _BY_NAME, costs),
            self._hard_pairs,
            self._rarity,
            self._budget,
            model=model,
            metrics=parts.metrics,
        )
        earned = self._earned[model] = _Earned(name, judge, namespaces, evidence, costs)
        return earned

    async def _embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return await self._probe.encode(self._tokenizer.encode(texts))


@dataclass(frozen=True, slots=True)
class _Earned:
    """How a model's thresholds are earned: the name of the evidence, the judge, and the parts."""

    name: str
    judge: str | None
    namespaces: JudgedNamespaces
    evidence: Evidence
    costs: Costs


def _check_judge(settings: Settings, upstreams: Mapping[str, UpstreamSettings]) -> None:
    judge = settings.chat.judge
    if judge in {"auto", "none"}:
        return
    if not any(judge in one.models or one.has_any_chat_model for one in upstreams.values()):
        raise ConfigError(f"chat.judge: no upstream serves the model {judge}")


def _staleness(reloading: Reloading) -> StalenessRules:
    rules = StalenessRules(Staleness(), {})

    def take(settings: Settings) -> None:
        chat = settings.chat
        rules.replace(
            Staleness(chat.stale_while_revalidate_s, chat.stale_if_error_s),
            {
                Namespace(tenant, name).id: Staleness(given.while_revalidate, given.if_error)
                for tenant, names in settings.namespace_stale_s.items()
                for name, given in names.items()
            },
        )

    reloading.take_by(take)
    return rules


def _caches_tools(reloading: Reloading) -> Callable[[str], bool]:
    by_namespace: dict[str, bool] = {}

    def take(settings: Settings) -> None:
        by_namespace.clear()
        by_namespace.update(
            (Namespace(tenant, name).id, given == "on")
            for tenant, names in settings.namespace_cache_tools.items()
            for name, given in names.items()
        )

    reloading.take_by(take)
    return lambda namespace_id: by_namespace.get(
        namespace_id, reloading.settings.chat.cache_tools == "on"
    )
