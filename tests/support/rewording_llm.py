"""An upstream that words every answer anew, as real models do, and judges with given error rates.

Each paraphrase group of questions has one instruction's answers, by several models: every answer is
one of them at random. The judge knows the truth, and errs at random, in each reply anew. A right
reference halves its errors, and what equals its reference it always accepts.
"""

import json
import random
from collections.abc import Sequence

from upstream import Asked, chunks, completion

from cacheproxy.evaluation.traffic import Request, Texts


class RewordingModel:
    """The behaviour of an upstream for questions that were drawn from labelled texts."""

    def __init__(
        self,
        requests: Sequence[Request],
        texts: Texts,
        answers: Sequence[dict[str, str]],
        *,
        sensitivity: float,
        false_rejects: float,
        seed: int,
    ) -> None:
        groups = texts.joined_groups()
        self._group_of = {request.text: groups[request.source] for request in requests}
        self._answers = [list(one.values()) for one in answers]
        # Two instructions' answers never coincide within what is asked for here.
        self._group_of_answer: dict[str, set[int]] = {}
        self._sensitivity = sensitivity
        self._false_rejects = false_rejects
        self._draw = random.Random(seed)  # noqa: S311
        self.given: set[tuple[str, str]] = set()
        self.judged = 0
        self.later_opinions: list[dict[str, str]] = []
        # Of right answers, by whether they were given to this very question: accepted, rejected.
        self.right = {"cached": [0, 0], "own": [0, 0]}

    def group_of(self, question: str) -> int | None:
        return self._group_of.get(question)

    def is_right(self, question: str, answer: str) -> bool:
        return self.group_of(question) in self._group_of_answer.get(answer, ())

    def is_own(self, pair: dict[str, str]) -> bool:
        return (pair["question"], pair["answer"]) in self.given

    def _rejects(self, pair: dict[str, str], *, opinion: int) -> bool:
        self.judged += 1
        is_right = self.is_right(pair["question"], pair["answer"])
        rate = self._false_rejects if is_right else self._sensitivity
        reference = pair.get("reference")
        if reference is not None and self.is_right(pair["question"], reference):
            rate = rate / 2 if is_right else (1 + rate) / 2
        rejects = self._draw.random() < rate and reference != pair["answer"]
        if opinion > 1:
            self.later_opinions.append(pair)
        if is_right and (opinion == OPINIONS or not rejects):
            self.right["own" if self.is_own(pair) else "cached"][rejects] += 1
        return rejects

    async def __call__(self, exchange) -> None:
        asked = exchange.asked
        pair = asked.judged_pair
        if pair is not None:
            word = "REJECT" if self._rejects(pair, opinion=opinion_of(asked)) else "ACCEPT"
            await exchange.answer(200, json.dumps(completion(asked, word)).encode())
            return
        group = self._group_of[asked.question]
        # The group's number makes equal instructions of different groups different answers.
        chosen = self._draw.choice(self._answers[group % len(self._answers)])
        text = f"{chosen} [{group}]"
        self._group_of_answer.setdefault(text, set()).add(group)
        self.given.add((asked.question, text))
        if asked.body.get("stream"):
            await exchange.begin_stream()
            for chunk in chunks(asked, text):
                await exchange.event(chunk)
            await exchange.end_stream()
        else:
            await exchange.answer(200, json.dumps(completion(asked, text)).encode())


OPINIONS = 3


def opinion_of(asked: Asked) -> int:
    """Return how often a judge is asked about a pair, this time included: each in other words."""
    task = asked.body["messages"][0]["content"]
    if "check answers" in task:
        return 1
    return OPINIONS if "once more" in task else 2
