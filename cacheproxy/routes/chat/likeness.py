"""The semantic tier of one model's completions: what is near, what may be served, what was learned.

A neighbour has the same context, that is everything but the last user turn, and the same signature;
only the rest of the question may differ, and how far is for the earned threshold to say. Evidence
comes from answers: what the upstream said to a question is compared with what it said to the
neighbour. All of that happens off the path: while nothing may be served yet, not even a neighbour
is looked for until the answer is there.
"""

from collections import OrderedDict

from cacheproxy.errors import ApiError
from cacheproxy.inference.tokenizer import Tokenizer
from cacheproxy.routes.chat.agreement import SENSITIVITY, Comparer
from cacheproxy.routes.chat.judge import Judge
from cacheproxy.routes.chat.record import CompletionRecord
from cacheproxy.routes.dialects.request import UserTurn
from cacheproxy.routes.dialects.text import text_of
from cacheproxy.settings.sections import ChatSettings
from cacheproxy.stores.protocol import Partition
from cacheproxy.thresholds.controller import Controller
from cacheproxy.thresholds.promise import Promise
from cacheproxy.tiers.semantic import Lookup, SemanticTier

AGREES = 1.0
"""The similarity of answers that agree; of others it is 0."""

_LEAST_CHECKS, _MOST_CHECKS = 0.02, 0.25
"""Shares of hits that are asked for again: an answer costs more than a vector."""

_JUDGED_SCORE = 0.8
"""Answers to questions that are less alike count as different without asking the judge."""

_QUARANTINED = 8_192
"""Entries that were found to be wrong for others; some 600 kB."""


def promise_of_chat(chat: ChatSettings) -> Promise:
    """Return the promise that the settings make, as it is to be kept of what the comparer sees."""
    sensitivity = SENSITIVITY
    if chat.judge_sensitivity is not None:
        # What either of the two takes for the same is missed.
        sensitivity += chat.judge_sensitivity - 1
    return Promise(
        max_error=chat.max_error * sensitivity,
        confidence=chat.confidence,
        min_similarities=(AGREES,),
        least_checks=_LEAST_CHECKS,
        most_checks=_MOST_CHECKS,
    )


class Likeness:
    """Lookups, evidence and quarantine for one model."""

    def __init__(
        self,
        tier: SemanticTier[CompletionRecord],
        controller: Controller,
        tokenizer: Tokenizer,
        comparer: Comparer,
        judge: Judge | None = None,
    ) -> None:
        self._tier = tier
        self._controller = controller
        self._tokenizer = tokenizer
        self._comparer = comparer
        self._judge = judge
        self._quarantined: OrderedDict[bytes, None] = OrderedDict()

    def is_open(self, namespace_id: str) -> bool:
        """Return whether anything may be served in a namespace at the moment."""
        return self._controller.is_open(namespace_id)

    def partition_of(self, namespace_id: str, turn: UserTurn) -> Partition:
        """Return where a namespace's entries of a turn's context are indexed."""
        return self._tier.partition_of(namespace_id, turn.context)

    async def find(
        self, namespace_id: str, turn: UserTurn, key: bytes, *, can_check: bool
    ) -> Lookup[CompletionRecord]:
        """Return the nearest entry of the turn's context, and whether it may be served.

        Where there is no room for checks, what would have to be checked is no hit.
        """
        (ids,) = self._tokenizer.encode([turn.question])
        if self._tokenizer.is_full(ids):
            return Lookup()
        probes = await self._tier.probe([ids])
        partition = self.partition_of(namespace_id, turn)
        (lookup,) = await self._tier.find(
            partition, probes, [key], min_similarity=None, can_check=can_check
        )
        return lookup

    async def learn(self, namespace_id: str, lookup: Lookup[CompletionRecord], body: bytes) -> bool:
        """Compare a fresh completion with the neighbour's; take note, and return, if they agree.

        Raises:
            ApiError: there was no telling, which counts as a wrong one: equal answers are told
                without any help, so that leaving the others out would make the tier too sure.
        """
        if lookup.neighbour is None:
            raise ValueError("there is no neighbour to learn from")
        answers = text_of(body), text_of(lookup.neighbour.body)
        try:
            does_agree = await self._comparer.agree(*answers)
            if not does_agree and self._judge is not None and self.may_ask_judge(lookup):
                does_agree = await self._judge.agree(*answers)
        except ApiError:
            self._tier.learn(namespace_id, lookup.score, 0.0)
            raise
        self._tier.learn(namespace_id, lookup.score, float(does_agree))
        return does_agree

    def may_ask_judge(self, lookup: Lookup[CompletionRecord]) -> bool:
        """Return whether `learn` may make a request of the proxy's own."""
        return self._judge is not None and lookup.score >= _JUDGED_SCORE

    def looked_up(self, namespace_id: str, seconds: float, *, is_hit: bool) -> None:
        """Take note of what a lookup on the path took."""
        self._tier.looked_up(namespace_id, seconds, 1, int(is_hit))

    def answered(self, namespace_id: str, seconds: float) -> None:
        """Take note of what an answer took, which hits spare."""
        self._tier.inferred(namespace_id, seconds, 1)

    def reported(self, namespace_id: str, score: float) -> None:
        """Take note that a client called a hit of this score wrong."""
        self._tier.learn(namespace_id, score, 0.0)

    def quarantine(self, key: bytes) -> None:
        """Let an entry of this key be found by nobody but who asks its own question."""
        self._quarantined[key] = None
        if len(self._quarantined) > _QUARANTINED:
            self._quarantined.popitem(last=False)

    def is_quarantined(self, key: bytes) -> bool:
        """Return whether it is."""
        return key in self._quarantined
