"""How the chat route earns its thresholds: which pairs go to the judge, and what comes of it.

All of it happens behind the answers. Labels, controls and references are requests of the proxy's
own: each is counted by its purpose, and bounded by a rate and by a share of what the clients'
requests cost (`thresholds.judged.allowance`). Without a judge, answers are compared instead.

A second opinion has a reference wherever one is to be had: for a pair, for its control, for a hit
and for a shipped pair. Only a changed question, to which nobody has an answer, has none. A
reference shows the judge what the answer lacks, so that without one it sees at most as many wrong
ones; and of the two kinds of wrong pairs the worse counts.
"""

import logging
import random
import time
from collections import deque
from collections.abc import Callable

from cacheproxy.concurrency.background import BackgroundTasks
from cacheproxy.errors import ApiError
from cacheproxy.fairness.shelves import FairMap
from cacheproxy.keys import owner_of
from cacheproxy.routes.chat.likeness import Near
from cacheproxy.routes.judging.agreement import Comparer
from cacheproxy.routes.judging.budget import Budget
from cacheproxy.routes.judging.fresh import Asked, FreshAnswers
from cacheproxy.routes.judging.hard_pairs import inject
from cacheproxy.routes.judging.judge import Judge, Pair
from cacheproxy.routes.judging.mutation import Rarity, mutate
from cacheproxy.telemetry.metrics import Metrics
from cacheproxy.thresholds.judged.allowance import Purpose
from cacheproxy.thresholds.judged.evidence import Kind, Outcome
from cacheproxy.thresholds.judged.namespaces import JudgedNamespaces
from cacheproxy.thresholds.judged.thresholds import Pick

logger = logging.getLogger(__name__)

_AT_ONCE = 8
"""Judgements that are under way at the same time."""

_QUESTIONS, _NAMESPACES = 32, 256
"""The latest questions of a namespace, from which changed ones take their names; namespaces."""

_COMPLAIN_S = 60.0


class Evidence:
    """Labels and controls for one model."""

    def __init__(
        self,
        namespaces: JudgedNamespaces,
        comparer: Comparer,
        judge: Judge | None,
        fresh: FreshAnswers,
        hard_pairs: list[Pair],
        rarity: Rarity,
        budget: Budget,
        *,
        model: str,
        metrics: Metrics,
        draw: random.Random | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare.

        Args:
            namespaces: what is learned goes there.
            comparer: sees which answers are the same, without a judge.
            judge: says whether an answer answers a question; None: there is none.
            fresh: gives references.
            hard_pairs: shipped pairs that a judge must reject.
            rarity: of words.
            budget: the rate of the proxy's own requests.
            model: the model's label in the metrics.
            metrics: counts.
            draw: random choices.
            monotonic: seconds.
        """
        self._namespaces = namespaces
        self._comparer = comparer
        self._judge = judge
        self._fresh = fresh
        self._hard_pairs = hard_pairs
        self._rarity = rarity
        self._budget = budget
        self._draw = draw or random.Random()  # noqa: S311
        self._monotonic = monotonic
        self._tasks = BackgroundTasks(_AT_ONCE)
        self._questions = FairMap[str, deque[str]](_NAMESPACES, owner_of)
        self._complained_at = -_COMPLAIN_S
        self._model = model
        self._requests = metrics.own_requests
        self._tokens = metrics.own_tokens
        self._cost = metrics.own_cost
        self._failures = metrics.judge_failures.labels(model)

    def earn(self, namespace_id: str, cost: float) -> None:
        """Take what a client's request cost: the proxy may spend a share of it."""
        thresholds = self._namespaces.of(namespace_id)
        part = 0.1 if thresholds.aside else 1.0
        self._namespaces.allowance.earn(cost, is_open=thresholds.is_open, part=part)

    def served(self, namespace_id: str, saved_s: float) -> None:
        """Count a semantic hit, which saved so much of the upstream's time."""
        self._namespaces.served(namespace_id, saved_s)

    async def missed(self, namespace_id: str, asked: Asked, answer: str, near: Near) -> None:
        """Learn from a miss: from its neighbour, if it has one, and from a wrong pair."""
        thresholds = self._namespaces.of(namespace_id)
        if self._has_room and near.pick is not None and near.neighbour is not None:
            weight = thresholds.wants_label(near.pick, self._namespaces.allowance.fullness)
            if weight:
                await self._label_miss(namespace_id, asked, answer, near, weight)
        if self._has_room and self._judge is not None:
            kind = thresholds.wants_control()
            if kind is not None:
                kind, pair = self._wrong_pair(kind, namespace_id, asked, answer)
                self._tasks.start(self._control(namespace_id, kind, pair))
        self._remember(namespace_id, asked.question)

    def hit(
        self,
        namespace_id: str,
        asked: Asked,
        answer: str,
        pick: Pick,
        wrong: Callable[[], object],
    ) -> None:
        """Learn from a semantic hit, if it is its turn; call `wrong` if the judge rejects it."""
        if self._judge is None or not self._has_room:
            return
        thresholds = self._namespaces.of(namespace_id)
        weight = thresholds.wants_label(pick, self._namespaces.allowance.fullness)
        if weight:
            pair = Pair(asked.question, answer, self._fresh.of(asked, self._spend))
            self._tasks.start(self._label_hit(namespace_id, pair, pick, weight, wrong))

    def reported(self, namespace_id: str, pick: Pick) -> None:
        """Take note that a client called a semantic hit wrong."""
        self._observe(namespace_id, pick, Outcome.REJECTED, weight=1.0, served=True)

    def __len__(self) -> int:
        """Return how many judgements are under way."""
        return len(self._tasks)

    async def stop(self) -> None:
        """Give up the judgements that are under way; they are no labels."""
        await self._tasks.stop()

    @property
    def _has_room(self) -> bool:
        allowance = self._namespaces.allowance
        may_ask = self._budget.has_any(self._monotonic())
        return allowance.has_room and may_ask and not self._tasks.is_full

    async def _label_miss(
        self, namespace_id: str, asked: Asked, answer: str, near: Near, weight: float
    ) -> None:
        pick, cached = near.pick, near.neighbour
        if pick is None or cached is None:
            return
        try:
            is_same = await self._comparer.agree(answer, cached.text)
        except ApiError:
            return  # the encoder is overloaded: no label
        if is_same:
            self._observe(namespace_id, pick, Outcome.ACCEPTED, weight=weight, is_judged=False)
        elif self._judge is None:
            self._observe(namespace_id, pick, Outcome.REJECTED, weight=weight, is_judged=False)
        else:
            wants_own = self._namespaces.of(namespace_id).wants_own()
            another = self._fresh.of(asked, self._spend)
            own = Pair(asked.question, answer, another) if wants_own else None
            pair = Pair(asked.question, cached.text, None if another is None else answer)
            self._tasks.start(self._judge_miss(namespace_id, pair, own, pick, weight))

    async def _judge_miss(
        self, namespace_id: str, pair: Pair, own: Pair | None, pick: Pick, weight: float
    ) -> None:
        """Ask about a pair and its control, in an order that tells the judge nothing."""
        control: Outcome | None = Outcome.NONE
        if own is not None and self._draw.random() < 0.5:
            control = await self._ask(own, "control")
            outcome = await self._ask(pair, "label")
        else:
            outcome = await self._ask(pair, "label")
            if own is not None:
                control = await self._ask(own, "control")
        if outcome is None or control is None:
            return  # the judge could not be reached: no label
        self._observe(namespace_id, pick, outcome, weight=weight, control=control)

    async def _label_hit(
        self,
        namespace_id: str,
        pair: Pair,
        pick: Pick,
        weight: float,
        wrong: Callable[[], object],
    ) -> None:
        outcome = await self._ask(pair, "label")
        if outcome is None:
            return
        self._observe(namespace_id, pick, outcome, weight=weight, served=True)
        if outcome == Outcome.REJECTED:
            wrong()

    async def _control(self, namespace_id: str, kind: Kind, pair: Pair) -> None:
        outcome = await self._ask(pair, "sensitivity")
        if outcome is not None:
            item = self._draw.getrandbits(64)
            self._namespaces.controlled(namespace_id, kind, outcome, item=item)

    def _wrong_pair(
        self, kind: Kind, namespace_id: str, asked: Asked, answer: str
    ) -> tuple[Kind, Pair]:
        """Return a pair that is wrong by construction: a hard one if this question makes none."""
        if kind == Kind.TRAFFIC:
            others = list(self._questions.get(namespace_id) or ())
            changed = mutate(asked.question, others, self._rarity, self._draw.random)
            if changed is not None:
                return kind, Pair(changed, answer)
            kind = Kind.HARD
        pair = self._draw.choice(self._hard_pairs)
        if self._fresh.of(asked, self._spend) is None:
            pair = pair._replace(reference=None)
        return kind, inject(pair, self._draw.random) if kind == Kind.INJECTED else pair

    async def _ask(self, pair: Pair, purpose: Purpose) -> Outcome | None:
        """Return what the judge makes of a pair; None if it could not be asked."""
        if self._judge is None:
            return None
        try:
            return await self._judge.outcome(pair, purpose, self._spend)
        except ApiError as error:
            self._failures.inc()
            if self._monotonic() - self._complained_at >= _COMPLAIN_S:
                self._complained_at = self._monotonic()
                logger.warning("the judge %s cannot be asked: %s", self._judge.model, error)
            return None

    def _spend(self, purpose: Purpose, cost: float, tokens: int) -> None:
        self._namespaces.allowance.spend(purpose, cost, tokens)
        self._budget.take(self._monotonic())
        self._requests.labels(self._model, purpose).inc()
        self._tokens.labels(self._model, purpose).inc(tokens)
        self._cost.labels(self._model, purpose).inc(cost)

    def _observe(
        self,
        namespace_id: str,
        pick: Pick,
        outcome: Outcome,
        *,
        weight: float,
        served: bool = False,
        control: Outcome = Outcome.NONE,
        is_judged: bool = True,
    ) -> None:
        self._namespaces.observe(
            *(namespace_id, pick, outcome),
            item=self._draw.getrandbits(64),
            weight=weight,
            served=served,
            control=control,
            is_judged=is_judged,
        )

    def _remember(self, namespace_id: str, question: str) -> None:
        questions = self._questions.get(namespace_id)
        if questions is None:
            questions = deque(maxlen=_QUESTIONS)
            self._questions.put(namespace_id, questions)
        questions.append(question)
