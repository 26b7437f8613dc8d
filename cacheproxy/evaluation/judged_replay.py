"""Replays questions through the chat tier, with an upstream that rewords every answer, and a judge.

The decisions are the live route's: the same thresholds, features, plan and allowance, and the same
requests to the judge, with references and what they cost. The upstream's answers (see `answers`)
and the judge's replies are simulated.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cacheproxy.evaluation.answers import Answers, NoisyAnswers
from cacheproxy.evaluation.replay import MISS, SEMANTIC, Traffic
from cacheproxy.evaluation.simulated_judge import SimulatedJudge
from cacheproxy.thresholds.judged.allowance import Allowance, Purpose, tokens_cost
from cacheproxy.thresholds.judged.asking import Reply, outcome_of
from cacheproxy.thresholds.judged.evidence import Kind, Outcome
from cacheproxy.thresholds.judged.question_pair import Question, Rarity, features_of, take_apart
from cacheproxy.thresholds.judged.thresholds import CANDIDATES, JudgedThresholds, Pick, Standing

_NONE = -1.0
"""Scores below this are not neighbours."""

_TASK_TOKENS = 110
"""Tokens of a judge's request besides question and answer."""

_SHIPPED_TOKENS, _SHIPPED_ANSWER_TOKENS = 60, 40
"""Tokens of question and answer of a shipped pair, and of its reference."""


@dataclass
class JudgedTraffic:
    """Questions with their groups, and the features of each pair; replays share it.

    Attributes:
        traffic: the requests; `contexts` are by signature.
        texts: by number.
        groups: int64 [texts]; texts of one group have one answer.
        rarity: of words.
    """

    traffic: Traffic
    texts: Sequence[str]
    groups: NDArray[np.int64]
    rarity: Rarity
    _questions: dict[int, Question] = field(default_factory=dict)
    _features: dict[tuple[int, int], NDArray[np.float32]] = field(default_factory=dict)

    def features(self, text: int, other: int, cosine: float) -> NDArray[np.float32]:
        """Return the features of a pair."""
        key = (text, other)
        found = self._features.get(key)
        if found is None:
            one, two = self._question(text), self._question(other)
            found = self._features[key] = features_of(one, two, cosine)
        return found

    def _question(self, text: int) -> Question:
        found = self._questions.get(text)
        if found is None:
            found = self._questions[text] = take_apart(self.texts[text], self.rarity)
        return found


@dataclass
class JudgedReplay:
    """The outcome of a replay.

    Attributes:
        outcomes: int8 [requests], EXACT, MISS or SEMANTIC.
        is_wrong: bool [requests], semantic hits of another group.
        opened: the request at which the tier first opened, or None.
        standing: the state at the end.
        allowance: the judging costs spent.
        alarms: number of alarms by kind.
        agreed: labels that needed no judge, as the two answers were the same.
        changes: (request, score, threshold or None), whenever it changed.
    """

    outcomes: NDArray[np.int8]
    is_wrong: NDArray[np.bool_]
    allowance: Allowance
    opened: int | None = None
    agreed: int = 0
    standing: Standing | None = None
    alarms: dict[str, int] = field(default_factory=dict)
    changes: list[tuple[int, str, float | None]] = field(default_factory=list)

    @property
    def hits(self) -> int:
        """Semantic hits."""
        return int((self.outcomes == SEMANTIC).sum())

    @property
    def wrong(self) -> int:
        """Wrong ones among them."""
        return int(self.is_wrong.sum())

    @property
    def error(self) -> float:
        """Wrong given hit; 0 without hits."""
        return self.wrong / self.hits if self.hits else 0.0

    def as_text(self) -> str:
        """Return the figures."""
        allowance, standing = self.allowance, self.standing
        if standing is None:
            raise ValueError("the replay has not run yet")
        share = allowance.spent / allowance.clients_cost if allowance.clients_cost else 0.0
        opened = "never" if self.opened is None else f"at request {self.opened:,}"
        lines = [
            f"semantic hits     {self.hits:,} of {len(self.outcomes):,} requests",
            f"wrong ones        {self.wrong:,} ({self.error:.2%})",
            f"opened            {opened}",
            f"score             {standing.score}",
            f"judge, measured   rejects {standing.sensitivity.rate:.1%} of wrong answers"
            f" (at least {standing.sensitivity.lower:.1%}),"
            f" {standing.false_rejects:.1%} of right ones",
            f"judge's requests  {sum(allowance.requests.values()):,},"
            f" {share:.1%} of what clients' requests cost",
            f"labels without it  {self.agreed:,}, both answers were the same",
        ]
        if standing.aside:
            lines.append(f"steps aside       {standing.aside}")
        return "\n".join(lines)


class _Reference(NamedTuple):
    """Another answer, for a second opinion: its tokens, and what it costs to have it generated."""

    tokens: float
    cost: float = 0.0


class _Judged(NamedTuple):
    """What the judge is asked about.

    Attributes:
        is_wrong: the truth.
        is_injected: whether it tells the judge to accept it.
        tokens: of question and answer.
        reference: for a second opinion, or None.
    """

    is_wrong: bool
    is_injected: bool
    tokens: float
    reference: _Reference | None


class JudgedReplayer:
    """One replay; `run` executes it."""

    def __init__(
        self,
        traffic: JudgedTraffic,
        judge: SimulatedJudge,
        *,
        max_error: float = 0.02,
        confidence: float = 0.95,
        shares: tuple[float, float] = (0.10, 0.03),
        answers: Callable[[np.random.Generator], Answers] | None = None,
        seed: int = 0,
    ) -> None:
        """Prepare.

        Args:
            traffic: the requests.
            judge: whose replies they get.
            max_error, confidence: what is promised.
            shares: what may be spent while learning and once open.
            answers: makes what the upstream answers; None: noise.
            seed: of every random choice.
        """
        self._draw = random.Random(seed)  # noqa: S311
        self._traffic, self._judge = traffic, judge
        self.thresholds = JudgedThresholds(
            max_error=max_error, confidence=confidence, random=self._draw.random
        )
        requests = len(traffic.traffic.requests)
        texts = len(traffic.texts)
        self.result = JudgedReplay(
            np.zeros(requests, np.int8), np.zeros(requests, np.bool_), Allowance(*shares)
        )
        rng = np.random.default_rng(seed)
        self._answers = NoisyAnswers(texts, rng) if answers is None else answers(rng)
        self._answer_tokens = self._answers.tokens
        self._is_injected = (rng.random(texts) < judge.injected).tolist()
        self._question_tokens = [10 + len(text) / 4 for text in traffic.texts]
        self._halves = rng.integers(0, 2, texts).tolist()
        self._is_late = False
        self._now = 0.0

    def run(
        self, progress: Callable[[Sequence[int]], Sequence[int]] = lambda requests: requests
    ) -> JudgedReplay:
        """Return the outcome of all requests."""
        base, result = self._traffic.traffic, self.result
        near, near_scores = base.near
        known = np.zeros(len(self._traffic.texts), np.bool_)
        requests = base.requests.tolist()
        for number, text in enumerate(progress(requests)):
            self._now = float(number)
            self._is_late = number >= len(requests) // 2
            if known[text]:
                continue
            at = np.flatnonzero(known[near[text]] & (near_scores[text] > _NONE))[:CANDIDATES]
            served = False
            if len(at) and base.is_long[text]:
                candidates = near[text][at].tolist()
                served = self._look_up(number, text, candidates, near_scores[text][at].tolist())
            if not served:
                result.outcomes[number] = MISS
                known[text] = True
                cost = tokens_cost(self._question_tokens[text], self._answer_tokens[text])
                result.allowance.earn(
                    cost,
                    is_open=self.thresholds.is_open,
                    part=0.1 if self.thresholds.aside else 1.0,
                )
            self._ask_about_wrong_pairs(text)
            self._note(number)
        result.standing = self.thresholds.standing()
        result.alarms = dict(self.thresholds.alarms)
        return result

    def _look_up(
        self, number: int, text: int, candidates: Sequence[int], cosines: Sequence[float]
    ) -> bool:
        features = [
            self._traffic.features(text, other, cosine)
            for other, cosine in zip(candidates, cosines, strict=True)
        ]
        pick = self.thresholds.rank(features, [self._halves[other] for other in candidates])
        neighbour = candidates[pick.index]
        is_wrong = bool(self._traffic.groups[text] != self._traffic.groups[neighbour])
        served = self.thresholds.serve(pick)
        if served:
            self.result.outcomes[number] = SEMANTIC
            self.result.is_wrong[number] = is_wrong
        allowance = self.result.allowance
        if allowance.has_room and (weight := self.thresholds.wants_label(pick, allowance.fullness)):
            self._label(text, neighbour, pick, is_wrong, weight, served)
        return served

    def _label(
        self, text: int, neighbour: int, pick: Pick, is_wrong: bool, weight: float, served: bool
    ) -> None:
        if not served and self._answers.agree(text, neighbour):
            self.result.agreed += 1
            self._observe(pick, Outcome.ACCEPTED, weight, is_judged=False)
            return
        injected = self._is_injected
        asks = self._asks(text)
        pair = _Judged(
            is_wrong,
            injected[text] or injected[neighbour],
            self._question_tokens[text] + self._answer_tokens[neighbour],
            asks if served else _Reference(self._answer_tokens[text]),
        )
        outcome = self._ask(pair, "label")
        control: Outcome | None = Outcome.NONE
        if not served and outcome is not None and self.thresholds.wants_own():
            tokens = self._question_tokens[text] + self._answer_tokens[text]
            control = self._ask(_Judged(False, injected[text], tokens, asks), "control")
        if outcome is not None and control is not None:
            self._observe(pick, outcome, weight, served=served, control=control)

    def _observe(
        self,
        pick: Pick,
        outcome: Outcome,
        weight: float,
        *,
        served: bool = False,
        control: Outcome = Outcome.NONE,
        is_judged: bool = True,
    ) -> None:
        self.thresholds.observe(
            *(pick, outcome),
            now=self._now,
            item=self._draw.getrandbits(64),
            weight=weight,
            served=served,
            control=control,
            is_judged=is_judged,
        )

    def _ask_about_wrong_pairs(self, text: int) -> None:
        allowance = self.result.allowance
        if not allowance.has_room:
            return
        kind = self.thresholds.wants_control()
        if kind is None:
            return
        shipped = _Reference(_SHIPPED_ANSWER_TOKENS)
        pair = _Judged(True, kind == Kind.INJECTED, _SHIPPED_TOKENS, shipped)
        if kind == Kind.TRAFFIC:
            tokens = self._question_tokens[text] + self._answer_tokens[text]
            pair = _Judged(True, self._is_injected[text], tokens, None)
        outcome = self._ask(pair, "sensitivity")
        if outcome is not None:
            self.thresholds.controlled(
                kind, outcome, now=self._now, item=self._draw.getrandbits(64)
            )

    def _asks(self, text: int) -> "_Reference":
        """Return a reference that has to be generated."""
        answer = self._answer_tokens[text]
        return _Reference(answer, tokens_cost(self._question_tokens[text], answer))

    def _ask(self, pair: "_Judged", purpose: Purpose) -> Outcome | None:
        allowance = self.result.allowance
        replies: list[Reply] = []
        is_paid = False
        while (outcome := outcome_of(replies)) is None:
            reference = pair.reference if replies else None
            reply = self._judge.reply(
                is_wrong=pair.is_wrong,
                is_injected=pair.is_injected,
                is_late=self._is_late,
                has_reference=reference is not None,
                first=replies[0] if replies else None,
                draw=self._draw.random,
            )
            if reply is None:
                return None
            tokens = _TASK_TOKENS + pair.tokens
            if reference is not None:
                tokens += reference.tokens
                if reference.cost and not is_paid:
                    allowance.spend("reference", reference.cost, int(reference.cost))
                is_paid = True
            allowance.spend(purpose, tokens_cost(tokens, 1), int(tokens))
            replies.append(reply)
        return outcome

    def _note(self, number: int) -> None:
        result, thresholds = self.result, self.thresholds
        if thresholds.is_open and result.opened is None:
            result.opened = number
        shown = thresholds.band if thresholds.is_open else None
        before = result.changes[-1][2] if result.changes else None
        if shown != before:
            name = "learned" if thresholds.uses_learned else "cosine"
            result.changes.append((number, name, None if shown is None else float(shown)))
