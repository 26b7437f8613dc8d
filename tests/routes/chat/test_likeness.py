"""What a label is, and what it is not: doubt never speaks for the tier."""

import asyncio
import json

import pytest

from cacheproxy.errors import Overloaded
from cacheproxy.routes.chat.likeness import Likeness, promise_of_chat
from cacheproxy.routes.chat.record import CompletionRecord
from cacheproxy.settings.sections import ChatSettings
from cacheproxy.tiers.semantic import Lookup


class Tier:
    def __init__(self):
        self.labels = []

    def learn(self, namespace_id, score, similarity):
        self.labels.append(similarity)


class Says:
    """A comparer or a judge that says one thing."""

    def __init__(self, said):
        self.said, self.asked = said, 0

    async def agree(self, one, other):
        self.asked += 1
        if isinstance(self.said, Exception):
            raise self.said
        return self.said


def body_of(text):
    return json.dumps({"choices": [{"message": {"content": text}}]}).encode()


def record():
    return CompletionRecord("0" * 32, bytes(32), 0, 1, 1, 0, 0, 0, False, "m", body_of("old"))


async def label(comparer, judge=None, score=0.9):
    tier = Tier()
    likeness = Likeness(tier, None, None, comparer, judge)
    lookup = Lookup(neighbour=record(), score=score, is_hit=True)
    try:
        await likeness.learn("n", lookup, body_of("new"))
    finally:
        (found,) = tier.labels
    return found


async def test_answers_that_agree_are_a_right_label_and_others_a_wrong_one():
    assert await label(Says(True)) == 1
    assert await label(Says(False)) == 0


async def test_a_judge_is_asked_only_in_doubt_and_only_where_questions_were_near():
    for comparer, score, asked, right in (
        (Says(True), 0.9, 0, 1),
        (Says(False), 0.9, 1, 1),
        (Says(False), 0.7, 0, 0),
    ):
        judge = Says(True)
        assert await label(comparer, judge, score) == right
        assert judge.asked == asked


@pytest.mark.parametrize(
    ("comparer", "judge"),
    [(Says(Overloaded("busy")), None), (Says(False), Says(Overloaded("busy")))],
    ids=["comparer", "judge"],
)
async def test_what_could_not_be_told_counts_as_wrong(comparer, judge):
    tier = Tier()
    likeness = Likeness(tier, None, None, comparer, judge)

    with pytest.raises(Overloaded):
        await likeness.learn("n", Lookup(neighbour=record(), score=0.9), body_of("new"))

    assert tier.labels == [0]


def test_what_is_not_seen_is_reckoned_with():
    alone = promise_of_chat(ChatSettings())
    judged = promise_of_chat(ChatSettings(judge_model="j", judge_sensitivity=0.9))

    assert alone.max_error == pytest.approx(0.02 * 0.93)
    assert judged.max_error == pytest.approx(0.02 * 0.83)


async def test_a_comparison_that_is_cancelled_is_no_label():
    """A shutdown must not write false labels: they could suspend the tier after a restart."""

    class Never:
        async def agree(self, one, other):
            await asyncio.Event().wait()

    tier = Tier()
    likeness = Likeness(tier, None, None, Never())
    learning = asyncio.create_task(
        likeness.learn("n", Lookup(neighbour=record(), score=0.9), body_of("new"))
    )
    await asyncio.sleep(0)
    learning.cancel()
    await asyncio.gather(learning, return_exceptions=True)

    assert tier.labels == []
