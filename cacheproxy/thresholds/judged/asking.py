"""How a judge's replies become an outcome: a rejection is asked again, in other words.

A pair is accepted as soon as acceptances lead by one, so mostly with the first reply, and rejected
once rejections lead by three (Wald's sequential test, 1945, Annals of Mathematical Statistics
16:117). If it errs independently, a judge that rejects 5 % of right answers and 90 % of wrong ones
when asked once rejects 0.01 % and 86 %; with three rejections in a row, as few right ones and 73 %.
It is the false rejects that cost labels first, and what is not seen of wrong ones next. What is
measured on controls is the procedure as a whole, all questions together; that they err
independently is assumed nowhere.
"""

from collections.abc import Sequence
from typing import Literal

from cacheproxy.thresholds.judged.evidence import Outcome

_LEAD = 3
"""Of rejections, from which on a pair is rejected."""

MOST = 5
"""Questions about a pair; if they do not suffice, it is accepted."""

Reply = Literal["accept", "reject", "unreadable"]


def read_reply(text: object) -> Reply:
    """Return what a judge's answer says: one of two words, alone."""
    word = text.strip().strip("\"'`.*!").upper() if isinstance(text, str) else ""
    if word == "ACCEPT":
        return "accept"
    return "reject" if word == "REJECT" else "unreadable"


def outcome_of(replies: Sequence[Reply]) -> Outcome | None:
    """Return the outcome of the replies so far; None if the judge is to be asked once more."""
    if not replies:
        return None
    if replies[-1] == "unreadable":
        return Outcome.UNREADABLE
    rejections = replies.count("reject")
    lead = 2 * rejections - len(replies)
    if lead >= _LEAD:
        return Outcome.REJECTED
    return Outcome.ACCEPTED if lead < 0 or len(replies) >= MOST else None
