"""Replies of a judge, and the outcome of one to five of them."""

import pytest

from cacheproxy.thresholds.judged.asking import outcome_of, read_reply
from cacheproxy.thresholds.judged.evidence import Outcome


@pytest.mark.parametrize(
    ("text", "reply"),
    [
        ("ACCEPT", "accept"),
        (" accept.\n", "accept"),
        ("**REJECT**", "reject"),
        ("I would ACCEPT this", "unreadable"),
        ("", "unreadable"),
        (None, "unreadable"),
        ("ACCEPT REJECT", "unreadable"),
    ],
)
def test_only_one_word_alone_is_a_reply(text, reply):
    assert read_reply(text) == reply


@pytest.mark.parametrize(
    ("replies", "outcome"),
    [
        ([], None),
        (["accept"], Outcome.ACCEPTED),
        (["reject"], None),
        (["reject", "reject"], None),
        (["reject", "reject", "reject"], Outcome.REJECTED),
        (["reject", "accept"], None),
        (["reject", "accept", "accept"], Outcome.ACCEPTED),
        (["reject", "accept", "reject", "reject"], None),
        (["reject", "accept", "reject", "reject", "reject"], Outcome.REJECTED),
        (["reject", "reject", "accept", "reject", "reject"], Outcome.REJECTED),
        (["reject", "reject", "accept", "reject", "accept"], Outcome.ACCEPTED),
        (["unreadable"], Outcome.UNREADABLE),
        (["reject", "unreadable"], Outcome.UNREADABLE),
    ],
)
def test_a_rejection_is_asked_again_until_rejections_lead_by_three_or_acceptances_by_one(
    replies, outcome
):
    assert outcome_of(replies) == outcome
